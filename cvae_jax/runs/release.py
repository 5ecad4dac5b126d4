"""Turns a finished run into a released checkpoint with a model card.

    python -m cvae_jax.runs.release WORKDIR OUT [--data-dir DIR]

OUT holds the parameters of the run's best step and no optimiser state, its configuration, the
figures on the test split, a picture, and the card (README.md) that shows them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import jax

from cvae_jax import backend, data, errors
from cvae_jax.coding.tables import Tables
from cvae_jax.config import PRESETS, Config
from cvae_jax.modules import abstract_params
from cvae_jax.pixels import to_unit
from cvae_jax.runs import checkpoint, evaluation, plots, tables
from cvae_jax.runs.find import find
from cvae_jax.runs.record import Record

CARD = """# {title}

A convolutional VAE of `cvae_jax`: {shape} images, {latent_dim} latent dimensions, {size:.1f} MB of
float32 parameters. Trained on the training split of `{dataset}` ({train} images; {validation} more
chose the best step; fingerprint `{fingerprint:.16}...`) at step {step}, with
{versions}.

Made by

    python train.py --workdir WORKDIR --dataset {dataset} {flags}
    python -m cvae_jax.runs.release WORKDIR {out}

## Measured on the {test} images of the test split

    python evaluate.py --ckpt {out} --dataset {dataset}

```
{table}
```

![Originals over reconstructions](reconstructions.png)

The test split took no part in training or in any choice. `tables.bin` ({tables_size} kB, digest
`{tables:.16}...`) is what files are coded with: {components} components, calibrated on the training
images. `calibration.json` is how well the model reproduces held-out images, so that `cvae` can
warn of images that are none of its kind.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cvae_jax.runs.release", description=__doc__.split("\n")[0]
    )
    parser.add_argument("workdir", help="of a finished run of train.py")
    parser.add_argument("out", type=Path, help="directory of the new checkpoint")
    parser.add_argument("--data-dir", "--data_dir", help="where the run's dataset is")
    args = parser.parse_args(argv)
    backend.use_compilation_cache()
    found = find(args.workdir)
    record = Record.from_dict(checkpoint.read_config(found))
    model, dataset = record.config.model, record.dataset
    if not dataset.images:
        raise errors.CheckpointError(f"{args.workdir}: not of a run of train.py")
    coding_tables = tables.read(found)
    if coding_tables is None:
        raise errors.CheckpointError(
            f"{args.workdir} has no coding tables: its run was stopped before its end, so go on "
            "with it, or add them with cvae calibrate"
        )
    if args.out.exists():
        raise errors.CheckpointError(f"{args.out} exists already: remove it")
    params = checkpoint.restore(found, {"params": abstract_params(model)})["params"]
    h, w, channels = model.image_shape
    images = data.load(dataset.name, "test", args.data_dir, image_size=(h, w), channels=channels)
    result = evaluation.evaluate(model, params, images)
    record = dataclasses.replace(record, test=evaluation.to_json(result.summary))
    checkpoint.save(args.out, {"params": params}, record.to_dict())
    checkpoint.attach(args.out, tables.NAME, coding_tables.to_bytes())
    if usual_errors := tables.read_errors(found):
        checkpoint.attach(args.out, tables.ERRORS, usual_errors.to_bytes())
    plots.save(
        plots.worst_and_best(
            to_unit(images), to_unit(result.reconstructions), result.per_image["mse"]
        ),
        args.out / "reconstructions.png",
    )
    text = card(args.out, record, coding_tables, evaluation.table(result.summary))
    (args.out / "README.md").write_text(text)
    print(f"{args.out}: released; its model card is {args.out / 'README.md'}")
    return 0


def card(out: Path, record: Record, tables: Tables, table: str) -> str:
    """The model card of a release's record, as Markdown."""
    config, dataset = record.config, record.dataset
    parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config.model)))
    return CARD.format(
        title=out.name,
        out=out,
        shape="x".join(map(str, config.model.image_shape)),
        latent_dim=config.model.latent_dim,
        size=4 * parameters / 1e6,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        **dataset.images,
        step=record.step,
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        flags=_flags(config),
        tables=tables.digest.hex(),
        tables_size=round(len(tables.to_bytes()) / 1000),
        components=tables.components,
        table=table,
    )


def _flags(config: Config) -> str:
    """The preset that a configuration is, or every setting of its own."""
    shape = dict(zip(("height", "width", "channels"), config.model.image_shape, strict=True))
    for name, preset in PRESETS.items():
        if preset.replace(**shape) == config:
            return f"--preset {name}"
    settings = {**config.to_dict()["model"], **config.to_dict()["train"]}
    settings["filters"] = " ".join(map(str, config.model.filters))
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


if __name__ == "__main__":
    sys.exit(errors.run(main))
