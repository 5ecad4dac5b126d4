"""The convolutions are those of XLA and Linen, in value and in gradient."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cvae_jax import conv

# Sizes, kernels and strides: even and odd, square and not, smaller than the kernel, 1x1.
CASES = [
    ((28, 28), (3, 3), 2),
    ((7, 7), (3, 3), 2),
    ((9, 6), (5, 4), 2),
    ((5, 8), (2, 2), 3),
    ((1, 3), (3, 3), 2),
    ((6, 5), (3, 3), 1),
    ((4, 4), (1, 1), 2),
]
DIMS = ("NHWC", "HWIO", "NHWC")


def arrays(*shapes, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def assert_same_function(f, g, *args):
    """Equal values and equal gradients of a random projection, to 1e-4 relative."""
    expected = g(*args)
    (projection,) = arrays(expected.shape, seed=1)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, *args):
        value, pull = jax.vjp(function, *args)
        return value, pull(projection)

    value, ours = value_and_gradients(f, *args)
    _, theirs = value_and_gradients(g, *args)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_conv_is_xlas(size, kernel, stride):
    x, k = arrays((2, *size, 3), (*kernel, 3, 5))
    assert_same_function(
        lambda x, k: conv.conv(x, k, stride),
        lambda x, k: lax.conv_general_dilated(
            x, k, (stride, stride), "SAME", dimension_numbers=DIMS
        ),
        x,
        k,
    )


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_conv_transpose_is_the_transpose_of_conv(size, kernel, stride):
    """<conv(u), x> = <u, conv_transpose(x)> for every u, with the kernel's axes swapped."""
    small = conv.output_size(size, stride)
    x, k, u = arrays((2, *small, 3), (*kernel, 3, 5), (2, *size, 5))
    flipped = k[::-1, ::-1].swapaxes(2, 3)

    def transpose(x, k):
        flipped = k[::-1, ::-1].swapaxes(2, 3)
        _, pull = jax.vjp(
            lambda u: lax.conv_general_dilated(
                u, flipped, (stride, stride), "SAME", dimension_numbers=DIMS
            ),
            u,
        )
        return pull(x)[0]

    assert_same_function(lambda x, k: conv.conv_transpose(x, k, stride, size), transpose, x, k)
    left = jnp.vdot(conv.conv(u, flipped, stride), x)
    right = jnp.vdot(u, conv.conv_transpose(x, k, stride, size))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kernel", "stride", "features"),
    [((3, 3), 1, 1), ((3, 3), 2, 5), ((2, 2), 2, 5), ((5, 4), 2, 5), ((3, 3), 3, 4)],
)
def test_conv_transpose_is_linens_where_the_stride_divides_the_size(kernel, stride, features):
    x, k = arrays((2, 7, 6, 3), (*kernel, 3, features))
    layer = nn.ConvTranspose(features, kernel, (stride, stride), use_bias=False)
    assert_same_function(
        lambda x, k: conv.conv_transpose(x, k, stride, (7 * stride, 6 * stride)),
        lambda x, k: layer.apply({"params": {"kernel": k}}, x),
        x,
        k,
    )


def test_matmul_gradient_is_that_of_the_product():
    for k, m in [(3, 7), (7, 3)]:
        x, w = arrays((4, 5, k), (k, m))
        assert_same_function(conv.matmul, jnp.matmul, x, w)
