"""The frameworks that are timed: each makes calls of no arguments that train, encode or decode.

A contestant is ``make(task, batch) -> call``: ``task`` is "train", "encode" or "decode", and one
``call()`` does it for one batch and returns when the result is there.  Encoding goes from uint8
images to latents, decoding from latents to float images, from NumPy to NumPy, all in float32.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvae_jax import codec, losses, training
from cvae_jax.config import PRESETS, Config
from cvae_jax.modules import Posterior, VAEOutput, named_leaves

Call = Callable[[], object]
Make = Callable[[str, int], Call]
CONFIG = PRESETS["original"]
IMAGES = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), np.uint8)
LATENTS = np.random.default_rng(1).normal(size=(4096, CONFIG.model.latent_dim)).astype(np.float32)


def ours(config: Config = CONFIG) -> Make:
    c = codec.load("mnist")
    images = IMAGES[: len(LATENTS)]

    def make(task: str, batch: int) -> Call:
        if task == "encode":
            return lambda: c.encode(images[:batch])
        if task == "decode":
            return lambda: c.decode(LATENTS[:batch])
        settings = config.replace(batch_size=batch, epochs=10_000)  # more than are taken
        steps = training.run(settings, training.init_state(settings, 1_000_000), IMAGES)
        return lambda: jax.block_until_ready(next(steps).state)

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


def rivals() -> tuple[dict[str, Make], dict[str, str]]:
    """The contestants of other frameworks that are installed, and why others are left out."""
    found: dict[str, Make] = {}
    left_out = {}
    for name, (modules, make) in RIVALS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            left_out[name] = f"not installed: {', '.join(missing)}"
        else:
            found |= make()
    return found, left_out


def pytorch() -> dict[str, Make]:
    """Eager, channels_last and compiled."""
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


def exported(task: str, batch: int) -> bytes:
    """The released model as an ONNX graph for batches of one size: "encode" or "decode".

    Its operators have channels first, so kernels and the two flat layouts are rearranged.  SAME
    padding of an even size with stride 2 is one row and one column, after the image.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    model = CONFIG.model
    params = {k: np.asarray(v) for k, v in named_leaves(codec.load("mnist").params).items()}
    flat = (model.height // 4, model.width // 4, model.filters[-1])
    tensors: dict[str, np.ndarray] = {}
    nodes: list = []

    def add(operator: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"node_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def constant(name: str, value: object) -> str:
        tensors[name] = np.ascontiguousarray(value)
        return name

    def layer(
        operator: str, x: str, name: str, arrange=lambda k: k, bias=lambda b: b, **how
    ) -> str:
        kernel = constant(f"{name}/kernel", arrange(params[f"{name}/kernel"]))
        return add(
            operator, x, kernel, constant(f"{name}/bias", bias(params[f"{name}/bias"])), **how
        )

    def conv(x: str, name: str) -> str:
        return layer(
            "Conv", x, name, lambda k: k.transpose(3, 2, 0, 1), strides=[2, 2], pads=[0, 0, 1, 1]
        )

    def deconv(x: str, name: str, stride: int) -> str:
        return layer(
            "ConvTranspose", x, name, lambda k: k[::-1, ::-1].transpose(2, 3, 0, 1),
            strides=[stride] * 2, pads=[0, 0, 1, 1] if stride == 2 else [1, 1, 1, 1],
        )  # fmt: skip

    latents = [batch, model.latent_dim]
    images = [batch, *model.image_shape]
    if task == "encode":
        shape = constant("shape", [batch, model.channels, model.height, model.width])
        x = add("Cast", "input", to=TensorProto.FLOAT)
        x = add("Reshape", add("Mul", x, constant("scale", np.float32(1 / 255))), shape)
        for i in range(len(model.filters)):
            x = add("Relu", conv(x, f"encoder/conv_{i}"))
        x = layer(
            "Gemm", add("Flatten", x), "encoder/dense",
            lambda k: k.reshape(*flat, -1).transpose(2, 0, 1, 3).reshape(len(k), -1),
        )  # fmt: skip
        x = layer("Gemm", add("Relu", x), "encoder/z_mean")
        given, made = (TensorProto.UINT8, images), latents
    else:
        x = layer(
            "Gemm", "input", "decoder/dense",
            lambda k: k.reshape(-1, *flat).transpose(0, 3, 1, 2).reshape(len(k), -1),
            lambda b: b.reshape(flat).transpose(2, 0, 1).ravel(),
        )  # fmt: skip
        x = add("Reshape", add("Relu", x), constant("shape", [batch, flat[2], *flat[:2]]))
        for i in range(len(model.filters)):
            x = add("Relu", deconv(x, f"decoder/deconv_{i}", stride=2))
        x = add("Sigmoid", deconv(x, "decoder/output", stride=1))
        x = add("Reshape", x, constant("images", images))  # one channel: only the shape changes
        given, made = (TensorProto.FLOAT, latents), images
    graph = helper.make_graph(
        nodes, task, [helper.make_tensor_value_info("input", *given)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, made)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    # Versions that runtimes of some years read.
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _deployed(name: str, prepare: Callable[[bytes, int], Callable]) -> dict[str, Make]:
    """Contestants of a runtime of ONNX graphs: with its default, as many threads as it finds best,
    and with one thread, which saves a small batch the handing over.

    prepare: makes a function of an array from a graph and a number of threads, 0: the default.
    """

    def contestant(threads: int) -> Make:
        def make(task: str, batch: int) -> Call:
            x = IMAGES[:batch] if task == "encode" else LATENTS[:batch]
            return functools.partial(prepare(exported(task, batch), threads), x)

        return make

    return {name: contestant(0), f"{name}, one thread": contestant(1)}


def onnx_runtime() -> dict[str, Make]:
    import onnxruntime as ort

    def prepare(graph: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"input": x})[0]

    return _deployed("ONNX Runtime", prepare)


def openvino() -> dict[str, Make]:
    """In float32, as all others; left alone, it takes bfloat16 where the CPU has that."""
    import openvino as ov

    core = ov.Core()

    def prepare(graph: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        request = core.compile_model(core.read_model(graph), "CPU", options).create_infer_request()

        def call(x: np.ndarray) -> np.ndarray:
            request.infer([x], share_inputs=True)
            return request.get_output_tensor().data.copy()  # the next call writes over it

        return call

    return _deployed("OpenVINO", prepare)


# The modules that each framework needs, and its contestants.
RIVALS: dict[str, tuple[tuple[str, ...], Callable[[], dict[str, Make]]]] = {
    "PyTorch": (("torch",), pytorch),
    "ONNX Runtime": (("onnx", "onnxruntime"), onnx_runtime),
    "OpenVINO": (("onnx", "openvino"), openvino),
}
TRAINS = "PyTorch"  # the others only run what was trained
