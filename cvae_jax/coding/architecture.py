"""What a decoder of an architecture consists of and costs, by arithmetic alone.

For architectures that come with a file: nothing is asked of JAX before they are found harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cvae_jax.config import ModelConfig

_KERNEL = 3  # of the transposed convolutions, each way


class Cost(NamedTuple):
    """Of decoding one image."""

    multiply_adds: int
    memory: int  # bytes, at most, between two layers


class _Layer(NamedTuple):
    name: str
    kernel: tuple[int, ...]
    positions: int  # that the kernel is applied to
    out: int  # numbers that come out


def decoder_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the decoder's parameters, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in _layers(model):
        shapes[f"{layer.name}/kernel"] = layer.kernel
        shapes[f"{layer.name}/bias"] = layer.kernel[-1:]
    return shapes


def decoder_cost(model: ModelConfig) -> Cost:
    multiply_adds = memory = 0
    for layer in _layers(model):
        size = 1
        for n in layer.kernel:
            size *= n
        multiply_adds += layer.positions * size
        # What goes in, what every tap of the kernel makes of it, and what comes out.
        taps = size // layer.kernel[-2]
        memory = max(memory, 4 * (layer.positions * (layer.kernel[-2] + taps) + layer.out))
    return Cost(multiply_adds, memory)


def _layers(model: ModelConfig) -> Iterator[_Layer]:
    """The layers of ``modules.Decoder``, in their order."""
    sizes = [(model.height, model.width)]
    for _ in model.filters:
        h, w = sizes[-1]
        sizes.append((-(-h // 2), -(-w // 2)))
    (h, w), features = sizes[-1], model.filters[-1]
    yield _Layer("dense", (model.latent_dim, h * w * features), 1, h * w * features)
    for i, (wanted, size) in enumerate(zip(model.filters[::-1], sizes[-2::-1], strict=True)):
        kernel = (_KERNEL, _KERNEL, features, wanted)
        yield _Layer(f"deconv_{i}", kernel, h * w, size[0] * size[1] * wanted)
        (h, w), features = size, wanted
    kernel = (_KERNEL, _KERNEL, features, model.channels)
    yield _Layer("output", kernel, h * w, h * w * model.channels)
