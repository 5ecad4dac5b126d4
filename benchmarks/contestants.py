"""The frameworks that are timed: each makes calls of no arguments that train, encode or decode.

A contestant is ``make(task, batch) -> call``: ``task`` is "train", "encode" or "decode", and one
``call()`` does it for one batch and returns when the result is there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvae_jax import backend, codec, losses, training
from cvae_jax.config import PRESETS, Config
from cvae_jax.modules import Posterior, VAEOutput, init_params

Call = Callable[[], object]
Make = Callable[[str, int], Call]
CONFIG = PRESETS["original"]
IMAGES = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), np.uint8)
LATENTS = np.random.default_rng(1).normal(size=(4096, CONFIG.model.latent_dim)).astype(np.float32)


def ours(config: Config = CONFIG) -> Make:
    backend.dispatch_inline()  # as codec.load and train.py do
    c = codec.Codec(config.model, init_params(config.model, jax.random.key(0)), {})
    images = IMAGES[: len(LATENTS)]

    def make(task: str, batch: int) -> Call:
        if task == "encode":
            return lambda: c.encode(images[:batch])
        if task == "decode":
            return lambda: c.decode(LATENTS[:batch])
        settings = config.replace(batch_size=batch)
        advance = training.make_advance(settings, 1_000_000)
        data, key = jax.device_put((IMAGES, jax.random.key(0)))
        order = jax.device_put(training.epoch_order(settings.train, 0, len(IMAGES)))
        state = training.init_state(settings, 1_000_000)

        def call() -> None:
            nonlocal state
            state, metrics = advance(state, data, order, key)
            jax.block_until_ready(metrics)

        return call

    return make


def linen() -> Make:
    """The same network as Linen writes it, with its own convolutions: why ``conv.py`` exists."""

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in CONFIG.model.filters:
                x = nn.relu(nn.Conv(features, (3, 3), (2, 2))(x))
            x = nn.relu(nn.Dense(CONFIG.model.dense_width)(x.reshape(x.shape[0], -1)))
            dim = CONFIG.model.latent_dim
            return Posterior(nn.Dense(dim)(x), nn.Dense(dim)(x))

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, z):
            x = nn.relu(nn.Dense(3136)(z)).reshape(-1, 7, 7, 64)
            for features in CONFIG.model.filters[::-1]:
                x = nn.relu(nn.ConvTranspose(features, (3, 3), (2, 2))(x))
            return nn.ConvTranspose(1, (3, 3))(x)

    encoder, decoder = Encoder(), Decoder()
    images, key = jnp.asarray(IMAGES[:4096] / np.float32(255)), jax.random.key(0)
    params = (encoder.init(key, images[:1]), decoder.init(key, LATENTS[:1]))
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, opt_state, x, key):
        def loss(params):
            posterior = encoder.apply(params[0], x)
            z = posterior.sample(jax.random.normal(key, posterior.z_mean.shape))
            return losses.elbo(VAEOutput(decoder.apply(params[1], z), posterior), x)[0]

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    encode = jax.jit(lambda x: encoder.apply(params[0], x).z_mean)
    decode = jax.jit(lambda z: nn.sigmoid(decoder.apply(params[1], z)))

    def make(task: str, batch: int) -> Call:
        if task == "encode":
            return lambda: np.asarray(encode(images[:batch]))
        if task == "decode":
            return lambda: np.asarray(decode(LATENTS[:batch]))
        state = [params, optimizer.init(params)]

        def call() -> None:
            state[:] = jax.block_until_ready(step(*state, images[:batch], key))

        return call

    return make


def pytorch() -> dict[str, Make]:
    """Eager, channels_last and compiled, of what is installed and works here."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch
    from torch import nn as tnn
    from torch.nn import functional as F

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    class Encoder(tnn.Module):
        def __init__(self):
            super().__init__()
            self.convs = tnn.Sequential(
                tnn.Conv2d(1, 32, 3, 2, 1), tnn.ReLU(), tnn.Conv2d(32, 64, 3, 2, 1), tnn.ReLU()
            )
            self.dense = tnn.Linear(3136, 128)
            self.z_mean, self.z_log_var = tnn.Linear(128, 16), tnn.Linear(128, 16)

        def forward(self, x, mean_only=False):
            x = F.relu(self.dense(self.convs(x).flatten(1)))
            return self.z_mean(x) if mean_only else (self.z_mean(x), self.z_log_var(x))

    class Decoder(tnn.Module):
        def __init__(self):
            super().__init__()
            self.dense = tnn.Linear(16, 3136)
            self.deconvs = tnn.Sequential(
                tnn.ConvTranspose2d(64, 64, 3, 2, 1, 1), tnn.ReLU(),
                tnn.ConvTranspose2d(64, 32, 3, 2, 1, 1), tnn.ReLU(),
                tnn.ConvTranspose2d(32, 1, 3, 1, 1),
            )  # fmt: skip

        def forward(self, z):
            return self.deconvs(F.relu(self.dense(z)).view(-1, 64, 7, 7))

    def contestant(channels_last: bool, compiled: bool) -> Make:
        def prepared(module):
            module = module.to(memory_format=torch.channels_last) if channels_last else module
            return torch.compile(module) if compiled else module

        def tensor(images):
            """uint8 ``[N, 28, 28, 1]`` as float32 ``[N, 1, 28, 28]``; one channel: no copy."""
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
            return x.contiguous(memory_format=torch.channels_last) if channels_last else x

        def make(task: str, batch: int) -> Call:
            encoder, decoder = prepared(Encoder()), prepared(Decoder())
            images = IMAGES[:batch]
            if task == "encode":

                def call():
                    with torch.inference_mode():
                        return encoder(tensor(images), mean_only=True).numpy()

            elif task == "decode":

                def call():
                    with torch.inference_mode():
                        return torch.sigmoid(decoder(torch.from_numpy(LATENTS[:batch]))).numpy()

            else:
                x = tensor(images)
                weights = [*encoder.parameters(), *decoder.parameters()]
                adam = torch.optim.Adam(weights, 1e-3)

                def call():
                    mean, log_var = encoder(x)
                    logits = decoder(mean + torch.exp(log_var / 2) * torch.randn_like(mean))
                    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
                    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
                    adam.zero_grad()
                    ((bce + kl) / batch).backward()
                    adam.step()

            return call

        return make

    variants = {"eager": (False, False), "channels_last": (True, False), "compile": (False, True)}
    return {f"PyTorch {name}": contestant(*how) for name, how in variants.items()}
