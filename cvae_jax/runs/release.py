"""Turns a finished run into a released checkpoint with a model card."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from cvae_jax import data, evaluation
from cvae_jax.config import PRESETS, Config, ModelConfig
from cvae_jax.errors import CheckpointError
from cvae_jax.file_model import FileModel
from cvae_jax.modules import abstract_params
from cvae_jax.refinement.integers import ContextModel
from cvae_jax.runs import checkpoint, plots
from cvae_jax.runs.checkpoint import StrPath
from cvae_jax.runs.find import CONTEXT, DECODER, ERRORS, TABLES, file_model, find, usual_errors
from cvae_jax.runs.record import Record

CARD = """# {title}

A convolutional VAE of `cvae_jax`: {shape} images, {latents}, {size:.1f} MB of
float32 parameters. Trained on the training split of `{dataset}` ({train} images; {validation} more
chose the best step; fingerprint `{fingerprint:.16}...`) at step {step}, with
{versions}.

Made by

    cvae train --workdir WORKDIR --dataset {dataset} {flags}
    cvae release WORKDIR {out}

## Measured on the {test} images of the test split

    cvae evaluate --ckpt {out} --dataset {dataset}

```
{table}
```

![Originals over reconstructions](reconstructions.png)

The test split took no part in training or in any choice. `tables.bin` ({tables_size} kB, digest
`{tables:.16}...`) is what files are coded with: {kind}, calibrated on the training
images. `decoder.bin` ({decoder_size} kB, digest `{decoder:.16}...`) is the decoder of files, in
integers: it gives the same pixels on every machine. `calibration.json` is how well files reproduce
held-out images, so that `cvae` can warn of images unlike the training data.
{context}"""

CONTEXT_CARD = """
`context.bin` ({size} kB, digest `{digest:.16}...`) is the context model, {work} weights in
integers, which lossless and bounded files need: trained on the training images for {steps} steps.
"""


def release(workdir: StrPath, out: Path, data_dir: str | None = None) -> None:
    """Writes the checkpoint ``out`` from the best step of a finished run.

    It holds the parameters and no optimiser state, the coding tables, the configuration, the
    figures on the test split, a picture, and the card (README.md) that shows them.

    data_dir: where the run's dataset is.

    Raises:
      CheckpointError: there is no finished run, or ``out`` exists.
      DataError: the dataset is not there.
    """
    checkpoint.check_free(checkpoint.absolute(out))
    found = find(workdir)
    record = Record.from_dict(checkpoint.read_config(found))
    model, dataset = record.config.model, record.dataset
    if not dataset.images:
        raise CheckpointError(f"{workdir}: not of a run of cvae train")
    files_of = file_model(found)
    if files_of is None:
        raise CheckpointError(
            f"{workdir} has no coding tables: its run was stopped before its end, so go on "
            "with it, or add them with cvae calibrate"
        )
    params = checkpoint.restore(found, {"params": abstract_params(model)})["params"]
    h, w, channels = model.image_shape
    images = data.open(dataset.name, "test", data_dir, image_size=(h, w), channels=channels)
    result = evaluation.evaluate(model, params, images)
    record = dataclasses.replace(record, test=evaluation.to_json(result.summary))
    files = {
        TABLES: files_of.tables.to_bytes(),
        DECODER: files_of.decoder.to_bytes(),
    }
    if usual := usual_errors(found):
        files[ERRORS] = usual.to_bytes()
    if files_of.context is not None:
        files[CONTEXT] = files_of.context.packed
    checkpoint.release(out, params, record.to_dict(), files)
    plots.save(
        plots.worst_and_best(
            images,
            functools.partial(evaluation.reconstruct, model, params),
            result.per_image["mse"],
        ),
        out / "reconstructions.png",
    )
    text = card(out, record, files_of, evaluation.table(result.summary))
    (out / "README.md").write_text(text)


def card(out: Path, record: Record, files: FileModel, table: str) -> str:
    """The model card of a release's record, as Markdown."""
    config, dataset = record.config, record.dataset
    parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config.model)))
    return CARD.format(
        title=out.name,
        out=out,
        shape="x".join(map(str, config.model.image_shape)),
        latents=_latents(config.model),
        size=4 * parameters / 1e6,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        **dataset.images,
        step=record.step,
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        flags=_flags(config),
        tables=files.tables.digest.hex(),
        tables_size=round(len(files.tables.to_bytes()) / 1000),
        kind=files.tables.kind,
        decoder=files.decoder.digest.hex(),
        decoder_size=round(len(files.decoder.to_bytes()) / 1000),
        context=_context_card(files.context, config.train.context_steps),
        table=table,
    )


def _latents(model: ModelConfig) -> str:
    if model.latent_map:
        return f"a {'x'.join(map(str, model.latent_map))} map of latents"
    return f"{model.latents} latent dimensions"


def _context_card(context: ContextModel | None, steps: int) -> str:
    if context is None:
        return ""
    return CONTEXT_CARD.format(
        size=round(len(context.packed) / 1000),
        digest=context.digest.hex(),
        work=context.pixel_work,
        steps=steps,
    )


def _flags(config: Config) -> str:
    """The preset that a configuration is, or every setting of its own."""
    shape = dict(zip(("height", "width", "channels"), config.model.image_shape, strict=True))
    for name, preset in PRESETS.items():
        if preset.replace(**shape) == config:
            return f"--preset {name}"
    settings = {**config.to_dict()["model"], **config.to_dict()["train"]}
    settings["filters"] = " ".join(map(str, config.model.filters))
    return " ".join(_flag(name.replace("_", "-"), value) for name, value in settings.items())


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"
