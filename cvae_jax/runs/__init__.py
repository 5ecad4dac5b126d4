"""A run in a workdir: training, checkpoints, pictures, release.  The only importer of Orbax."""
