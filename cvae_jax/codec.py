"""The codec: images to latents and back, from a checkpoint.

    from cvae_jax import codec

    c = codec.load("checkpoints/mnist")
    z = c.encode(images)            # [N, 16] float32
    x = c.decode(z)                 # [N, 28, 28, 1] float32 in [0, 1]

    data = c.compress(images)       # bytes of a file
    x = c.decompress(data)          # [N, 28, 28, 1] uint8
    c.open("digits.cvae")[1234]     # one image of an archive
    codec.open("all@512.cvae")[9]   # of a set of archives, by the model that made it

``encode`` and ``decode`` are also pure functions of parameters and arrays; ``Codec`` adds checked
input, any number of images and bounded memory.  Under ``jax.jit``, ``vmap`` and ``grad`` its
``encode``, ``posterior`` and ``decode`` are those functions of its own parameters.
"""

from __future__ import annotations

import builtins
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvae_jax import errors

with errors.needs("codec", "cvae_jax.codec (cvae_jax.reader reads files without it)"):
    import jax

from cvae_jax import backend, bitstream
from cvae_jax.bitstream import Identity
from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.file_model import FileModel
from cvae_jax.modules import Params, abstract_params, decode, encode, posterior
from cvae_jax.pipeline.compressor import Compressor
from cvae_jax.reader import open
from cvae_jax.runs import checkpoint
from cvae_jax.runs.find import file_model, find, usual_errors
from cvae_jax.runs.record import Record

__all__ = ["Codec", "decode", "encode", "from_embedded", "load", "open", "posterior"]


@dataclass(frozen=True, eq=False, repr=False)
class Codec(Compressor):
    """A trained model, ready for use; make one with ``load``.

    Copies and pickles are the same codec, compiled anew.
    """

    def __repr__(self) -> str:
        h, w, channels = self.image_shape
        origin = f"trained on {self.record.dataset.name}" if self.record else "from an archive"
        can = "encodes and decodes" if self.record else "only reads files"
        coding = "with" if self.files else "without"
        return (
            f"<Codec {origin}: {h}x{w}x{channels} images, {self.latent_dim} latents, {can}, "
            f"{coding} coding tables>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _ready, tuple((fields | {"params": jax.device_get(self.params)}).values())


def load(path: str | Path | None = None) -> Codec:
    """The codec of a checkpoint: a workdir of train.py, a step inside it, or a released one.

    Where nothing has that path, it is the name of a checkpoint that comes with the package
    (``mnist``, the default, ``mnist-hq`` or ``photos32``).  An archive that carries its model is a
    checkpoint too; its codec reads files, and neither encodes nor decodes latents.

    Raises:
      CheckpointError: nothing usable is there; the message says what was looked for.
      FormatError: an archive without a model, or damaged coding tables.
    """
    if path is not None and Path(path).is_file():
        with errors.naming(path), builtins.open(path, "rb") as file:
            archive = bitstream.Reader(file)
            return from_embedded(archive.model(), archive.header.identity)
    found = find(path)
    record = Record.from_dict(checkpoint.read_config(found))
    model = record.config.model
    params = checkpoint.restore(found, {"params": abstract_params(model)})["params"]
    files = {"files": file_model(found), "usual_errors": usual_errors(found)}
    return _ready(model, params, record, **files)


def from_embedded(blob: bytes | None, identity: Identity) -> Codec:
    """The codec that an archive of this identity carries; it reads files, and does nothing else.

    Raises:
      FormatError: it carries none, or a damaged one.
    """
    files = FileModel.unpack(blob, identity)
    # Of the encoder, which there is none of, the default stands.
    architecture = files.decoder.architecture
    sizes: dict[str, Any] = {"filters": architecture.filters}
    if architecture.latent_channels:
        sizes |= {
            "latent_channels": architecture.latent_channels,
            "blocks": architecture.blocks,
        }
    else:
        sizes["latent_dim"] = architecture.latent_dim
    try:
        model = ModelConfig(*files.image_shape, **sizes)
    except ConfigError as error:
        raise FormatError(f"an embedded model that no checkpoint has: {error}") from error
    return _ready(model, {}, files=files)


def _ready(model: ModelConfig, params: Params, *fields: Any, **named: Any) -> Codec:
    """The codec of parameters that are NumPy's: of a checkpoint, an archive or a pickle."""
    backend.dispatch_inline()
    return Codec(model, jax.device_put(params), *fields, **named)
