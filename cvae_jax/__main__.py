from cvae_jax.cli.start import run

run()
