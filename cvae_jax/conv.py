"""Convolutions as matrix products.

Why this module exists.  XLA's CPU backend runs the gradient of a strided
convolution, and a transposed convolution in both directions, as a *dilated*
convolution in a naive loop: with ``nn.Conv`` and ``nn.ConvTranspose`` the
default model trains at about 260 images/s on two cores, with this module at
well over 2,000 (``python -m benchmarks.throughput`` measures both).  It has not been
measured on an accelerator.

How.  A convolution is ``unfold`` (gather every window, "im2col") and one matrix
product; a transposed convolution is one matrix product and ``fold`` (add every
window into place, "col2im").  ``unfold`` and ``fold`` are linear and each
other's transpose, so each is the other's gradient, and no dilated convolution
is left in either direction.  ``fold`` computes the ``stride x stride`` phases of
its output one by one and interleaves them, so it spends no work on zeros.

The results are those of ``lax.conv_general_dilated`` with SAME padding and of its
transpose (for sizes divisible by the stride: of Linen's ``ConvTranspose``), with
the same kernels ``[kh, kw, in, out]``; ``tests/test_conv.py`` checks values and
gradients.

When it is no longer needed: when the row "Linen layers" of the benchmark comes
within a few per cent of the row "train".
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import Array, lax

from cvae_jax.config import Size


def output_size(size: Size, stride: int) -> Size:
    """Height and width after a SAME convolution of this stride."""
    return -(-size[0] // stride), -(-size[1] // stride)


def conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """SAME convolution: ``[N, H, W, C], [kh, kw, C, F] -> [N, ceil(H/s), ceil(W/s), F]``."""
    kh, kw, _, features = kernel.shape
    return matmul(unfold(x, (kh, kw), stride), kernel.reshape(-1, features))


def conv_transpose(x: Array, kernel: Array, stride: int, size: Size) -> Array:
    """Transpose of the SAME convolution that shrinks ``size`` to the size of ``x``.

    ``[N, h, w, C], [kh, kw, C, F] -> [N, *size, F]``, where ``(h, w)`` must be
    ``output_size(size, stride)``.  The kernel is laid out, and flipped, as Linen
    does it (``transpose_kernel=False``).
    """
    kh, kw, channels, _ = kernel.shape
    windows = matmul(x, kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(channels, -1))
    return fold(windows, (kh, kw), stride, size)


@jax.custom_vjp
def matmul(x: Array, w: Array) -> Array:
    """``[..., K] @ [K, M] -> [..., M]``, with a weight gradient that stays fast on CPU."""
    return x @ w


def _matmul_forward(x, w):
    return x @ w, (x, w)


def _matmul_backward(residuals, g):
    x, w = residuals
    rows, cols = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    # XLA:CPU is slow at products that contract the first axis of both operands, so the
    # narrower one is transposed beforehand; the barrier keeps XLA from undoing that.
    if rows.shape[1] <= cols.shape[1]:
        dw = lax.optimization_barrier(rows.T) @ cols
    else:
        product = lax.optimization_barrier(cols.T) @ rows
        # XLA turns the next transposition into a product of the other order, good unless thin.
        dw = (lax.optimization_barrier(product) if cols.shape[1] < 16 else product).T
    return g @ w.T, dw


matmul.defvjp(_matmul_forward, _matmul_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def unfold(x: Array, kernel: Size, stride: int) -> Array:
    """Every SAME window of ``x``: ``[N, H, W, C] -> [N, ceil(H/s), ceil(W/s), kh*kw*C]``."""
    _, h, w, _ = x.shape
    out_h, out_w = output_size((h, w), stride)
    low_y, low_x = _padding((h, w), kernel, stride)
    span_y, span_x = (out_h - 1) * stride + 1, (out_w - 1) * stride + 1
    x = _pad(
        x,
        (low_y, span_y + kernel[0] - 1 - h - low_y),
        (low_x, span_x + kernel[1] - 1 - w - low_x),
    )
    taps = itertools.product(range(kernel[0]), range(kernel[1]))
    return jnp.concatenate(
        [x[:, i : i + span_y : stride, j : j + span_x : stride] for i, j in taps], axis=-1
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def fold(windows: Array, kernel: Size, stride: int, size: Size) -> Array:
    """The transpose of ``unfold``: ``[N, ceil(H/s), ceil(W/s), kh*kw*C] -> [N, H, W, C]``."""
    n, h, w, _ = windows.shape
    windows = windows.reshape(n, h, w, *kernel, -1)
    low_y, low_x = _padding(size, kernel, stride)
    phase_h, phase_w = output_size(size, stride)

    def phase(p: int, q: int) -> Array:
        """Output rows p, p + s, p + 2s, ... and columns q, q + s, ...: [N, ., ., C]."""
        total = jnp.zeros((n, phase_h, phase_w, windows.shape[-1]), windows.dtype)
        for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
            # Tap (i, j) of window (y, x) lands on row y*s + i - low_y: a whole shift and a phase.
            (shift_y, to_p), (shift_x, to_q) = (
                divmod(i - low_y, stride),
                divmod(j - low_x, stride),
            )
            if (to_p, to_q) == (p, q):
                tap = windows[:, :, :, i, j]
                total += _pad(
                    tap, (shift_y, phase_h - h - shift_y), (shift_x, phase_w - w - shift_x)
                )
        return total

    rows = [jnp.stack([phase(p, q) for q in range(stride)], axis=3) for p in range(stride)]
    out = jnp.stack(rows, axis=2).reshape(n, phase_h * stride, phase_w * stride, -1)
    return out[:, : size[0], : size[1]]


unfold.defvjp(
    lambda x, kernel, stride: (unfold(x, kernel, stride), x.shape[1:3]),
    lambda kernel, stride, size, g: (fold(g, kernel, stride, size),),
)
fold.defvjp(
    lambda windows, kernel, stride, size: (fold(windows, kernel, stride, size), None),
    lambda kernel, stride, _, __, g: (unfold(g, kernel, stride),),
)


def _padding(size: Size, kernel: Size, stride: int) -> Size:
    """How many zeros SAME puts before the first row and the first column."""
    out = output_size(size, stride)
    low = [max((o - 1) * stride + k - s, 0) // 2 for o, k, s in zip(out, kernel, size, strict=True)]
    return low[0], low[1]


def _pad(x: Array, rows: tuple[int, int], cols: tuple[int, int]) -> Array:
    """Zeros around axes 1 and 2 of ``[N, H, W, C]``; a negative count cuts instead."""
    _, h, w, _ = x.shape
    # lax.pad takes negative counts too, but XLA:CPU then fuses it with nothing.
    x = x[:, max(-rows[0], 0) : h + min(rows[1], 0), max(-cols[0], 0) : w + min(cols[1], 0)]
    low_high = [(max(low, 0), max(high, 0), 0) for low, high in (rows, cols)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *low_high, (0, 0, 0)))
