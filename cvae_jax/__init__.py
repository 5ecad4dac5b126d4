"""A learned codec for small images: a convolutional variational autoencoder in JAX/Flax."""

__version__ = "0.1.0"
