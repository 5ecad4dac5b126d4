"""All settings of a model and of a training run, and the presets by name.

A field's ``help`` is its text in ``train.py --help``: each field below is a flag there.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from cvae_jax.errors import ConfigError

# Stored configurations beyond these are refused; nobody needs more for small images.
LARGEST = 1 << 14  # of any number of an architecture
MOST_STAGES = 16
MAP_GROUPS = 4  # of the channels of a map of latents, which the prior takes one after the other

Size = tuple[int, int]  # height, width


def evenly_halved(size: Size, stages: int) -> Size:
    """The size, or the next larger one, that so many stages halve evenly."""
    scale = 2**stages
    return -(-size[0] // scale) * scale, -(-size[1] // scale) * scale


def _setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def _check_types(config: Any) -> None:
    """Raises ConfigError at the first field that is of another type than its default."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(field.default, tuple):
            right = isinstance(value, tuple) and all(_is_a(int, v) for v in value)
        else:
            right = _is_a(type(field.default), value)
        if not right:
            kind = type(field.default).__name__
            raise ConfigError(f"{field.name} must be of type {kind}, not {value!r:.40}")


def _is_a(kind: type, value: Any) -> bool:
    """A whole number counts as a float, and a bool does not count as a number."""
    kinds = (int, float) if kind is float else kind
    return isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name} must be positive, not {getattr(config, name)}")


@dataclass(frozen=True)
class ModelConfig:
    """The architecture.  Height, width and channels are those of the images."""

    height: int = _setting(28, "image height; without it the data's own (image files are resized)")
    width: int = _setting(28, "image width, likewise; goes with height")
    channels: int = _setting(1, "1 for grey, 3 for colour; without it the data's own")
    latent_dim: int = _setting(16, "numbers that an image is encoded to")
    filters: tuple[int, ...] = _setting(
        (32, 64), "filters of each stride-2 convolution; the decoder mirrors them"
    )
    dense_width: int = _setting(128, "width of the encoder's dense layer")
    latent_channels: int = _setting(
        0, "channels of a map of latents; 0: one dense vector of latent_dim numbers"
    )
    blocks: int = _setting(0, "residual blocks beside a map of latents; maps only")

    def __post_init__(self):
        _check_types(self)
        _positive(self, "height", "width", "channels", "latent_dim", "dense_width")
        if not self.filters or min(self.filters) < 1:
            raise ConfigError(f"filters must be one or more positive numbers, not {self.filters}")
        if len(self.filters) > MOST_STAGES:
            raise ConfigError(f"filters must be {MOST_STAGES} at most, not {len(self.filters)}")
        sizes = {**dataclasses.asdict(self), "filters": max(self.filters)}
        for name, value in sizes.items():
            if value > LARGEST:
                raise ConfigError(f"{name} must be {LARGEST} at most, not {value}")
        self._check_map()

    def _check_map(self):
        """Raises ConfigError for settings of a map of latents that cannot be."""
        if self.latent_channels < 0 or self.latent_channels % MAP_GROUPS:
            raise ConfigError(
                f"latent_channels must be a multiple of {MAP_GROUPS}, or 0 for a dense vector, "
                f"not {self.latent_channels}"
            )
        if not 0 <= self.blocks <= MOST_STAGES:
            raise ConfigError(f"blocks must be from 0 to {MOST_STAGES}, not {self.blocks}")
        if self.blocks and not self.latent_channels:
            raise ConfigError("blocks go with a map of latents: set latent_channels too")
        for field in dataclasses.fields(self):
            unused = field.name in ("latent_dim", "dense_width") and self.latent_channels
            if unused and getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"{field.name} means nothing for a map of latents: leave it out, or set "
                    "latent_channels to 0"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def latent_map(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the map of latents; None: they are one dense vector."""
        if not self.latent_channels:
            return None
        scale = 2 ** len(self.filters)
        return -(-self.height // scale), -(-self.width // scale), self.latent_channels

    def of_size(self, height: int, width: int) -> ModelConfig:
        """The same network for images of another size, or the next larger one that its stages
        halve evenly, as they do its own.

        Raises:
          ConfigError: the latents are no map, or its own size is not halved evenly.
        """
        scale = 2 ** len(self.filters)
        if not self.latent_channels or self.height % scale or self.width % scale:
            why = "one dense vector of latents" if not self.latent_channels else "an uneven size"
            raise ConfigError(
                f"a model of {why} has images of {self.height}x{self.width} alone: resize others"
            )
        height, width = evenly_halved((height, width), len(self.filters))
        return dataclasses.replace(self, height=height, width=width)

    @property
    def latents(self) -> int:
        """How many numbers an image is encoded to."""
        return math.prod(self.latent_map) if self.latent_map else self.latent_dim

    @property
    def noise_dim(self) -> int:
        """How many random numbers an image takes in training: of a map, one draws the step."""
        return self.latents + 1 if self.latent_map else self.latents


@dataclass(frozen=True)
class TrainConfig:
    """The recipe: loss, optimiser, schedule and randomness."""

    epochs: int = _setting(
        50, "passes over the training images; a run ends after them, and cannot be prolonged"
    )
    batch_size: int = _setting(128, "images per optimiser step")
    learning_rate: float = _setting(1e-3, "Adam's learning rate at its highest")
    schedule: str = _setting(
        "constant",
        "learning rate over the run: constant, or a short warm-up and a cosine down to zero",
        ("constant", "cosine"),
    )
    reconstruction: str = _setting(
        "bce",
        "reconstruction loss, summed over pixels: binary cross-entropy or squared error",
        ("bce", "mse"),
    )
    beta: float = _setting(1.0, "weight of the KL term")
    average_decay: float = _setting(
        0.0,
        "decay per step of the running average of the parameters, which is what is kept; 0: none",
    )
    validation_fraction: float = _setting(
        1 / 12, "share of the training split held out to choose the best checkpoint"
    )
    flip: bool = _setting(False, "show every other image, at random, with left and right exchanged")
    compute_dtype: str = _setting(
        "float32",
        "arithmetic of the network; parameters and losses stay float32",
        ("float32", "bfloat16"),
    )
    context_steps: int = _setting(
        0, "steps of training the context model, which lossless files need, at the end; 0: none"
    )
    seed: int = _setting(0, "the one source of all randomness")

    def __post_init__(self):
        _check_types(self)
        _positive(self, "epochs", "batch_size", "learning_rate", "validation_fraction")
        for name, low, high in (
            ("beta", 0, math.inf),
            ("average_decay", 0, 1),
            ("validation_fraction", 0, 1),
        ):
            if not low <= getattr(self, name) < high:
                raise ConfigError(
                    f"{name} must be at least {low} and below {high}, not {getattr(self, name)}"
                )
        if self.context_steps < 0:
            raise ConfigError(f"context_steps must be 0 or more, not {self.context_steps}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to 4294967295, not {self.seed}")
        for field in dataclasses.fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            if choices and value not in choices:
                raise ConfigError(f"{field.name} must be one of {', '.join(choices)}, not {value}")


@dataclass(frozen=True)
class Config:
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """As JSON holds it (tuples become lists)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        """The inverse of ``to_dict``.

        Raises:
          ConfigError: a section or field is missing or unknown, or a value is not allowed.
        """
        try:
            model = {**data["model"], "filters": tuple(data["model"]["filters"])}
            return cls(ModelConfig(**model), TrainConfig(**data["train"]))
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"the stored configuration is not one of this version of cvae_jax: {error}"
            ) from error

    def replace(self, **settings: Any) -> Config:
        """A copy with these fields changed, whichever of the two sections they are in."""
        ours = {f.name for f in dataclasses.fields(ModelConfig)}
        model = {k: v for k, v in settings.items() if k in ours}
        train = {k: v for k, v in settings.items() if k not in ours}
        return Config(
            dataclasses.replace(self.model, **model), dataclasses.replace(self.train, **train)
        )


_COSINE = {"learning_rate": 2e-3, "schedule": "cosine"}

# For photographs: a map of latents.  Its error is the squared one of sRGB levels, of which equal
# steps look about equal, dark or bright; each of red, green and blue counts the same, as in what
# others report (results/README.md has luma, too).
_MAP = Config().replace(
    height=32,
    width=32,
    channels=3,
    reconstruction="mse",
    beta=0.029,
    epochs=24,
    batch_size=64,
    average_decay=0.999,
    flip=True,
    context_steps=2000,
    **_COSINE,
)

PRESETS: dict[str, Config] = {
    # The recipe of the Keras project that this one re-implements.
    "original": Config(),
    # A better loss than `original` in a fraction of the time.
    "default": Config().replace(epochs=15, average_decay=0.998, context_steps=1000, **_COSINE),
    # For scikit-learn's digits: 1,500 images make 23 steps an epoch, so many epochs.
    "digits": Config().replace(
        epochs=80, batch_size=64, average_decay=0.99, context_steps=1000, **_COSINE
    ),
    # What made checkpoints/mnist-hq: squared error, many latents, and a light KL term, so that
    # the posterior, and with it the quantiser's unit, is fine.
    "hq": Config().replace(
        latent_dim=160,
        dense_width=352,
        reconstruction="mse",
        beta=0.005,
        epochs=60,
        learning_rate=3e-3,
        schedule="cosine",
        average_decay=0.999,
        context_steps=8000,
    ),
    # For photographs of 32x32 pixels, like CIFAR-10's.  What made checkpoints/photos32.
    "photos32": _MAP.replace(filters=(32, 96), latent_channels=24, blocks=1),
    # For a few thousand images of one's own, which pay for their decoder: half as large.
    "collection": _MAP.replace(filters=(32, 64), latent_channels=16, blocks=1),
    # What made checkpoints/mnist.
    "release": Config().replace(epochs=60, average_decay=0.999, context_steps=16_000, **_COSINE),
}
