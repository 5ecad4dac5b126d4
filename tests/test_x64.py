"""With JAX's default precision doubled, models, files and runs are the same as without."""

import json
import os
import subprocess
import sys

from conftest import RELEASED, ROOT

CODE = """
import hashlib, json, sys
from pathlib import Path
import jax, numpy as np
from cvae_jax import codec, data, training
from cvae_jax.config import Config
from cvae_jax.data.holdout import TrainingData
from cvae_jax.modules import abstract_params
from cvae_jax.runs import run

released, workdir = sys.argv[1:]
images = data.load("digits", "test")[:24]
c = codec.load(released)
found = {
    "archive": c.compress(images, effort=1, embed_model="float16"),
    "of floats": c.compress(images / 255.0, quality=70, effort=1),
    "single": c.compress(images[0]),
    "encoded": c.encode(images),
    "decoded": c.decompress(c.compress(images)),
    "sampled": c.sample(7, 3),
    "posterior": c.sample_posterior(7, images),
    "traced": np.asarray(jax.jit(c.decode)(np.zeros((2, 16)))),
}
out = {
    name: [str(getattr(a, "dtype", "")), hashlib.sha256(bytes(memoryview(a))).hexdigest()]
    for name, a in found.items()
}

config = Config().replace(
    latent_dim=2, filters=(2,), dense_width=4, epochs=1, batch_size=8, average_decay=0.9
)
split = TrainingData.split("digits", images, images, 0.2)
for _ in range(2):  # the second time it goes on with what the first saved
    best = run.train(config, split, Path(workdir), say=lambda line: None)
trained = codec.load(best)
state = training.init_state(config, 2)
out["dtypes"] = sorted({str(leaf.dtype) for leaf in jax.tree.leaves((trained.params, state))})
out["shape"] = list(trained.decompress(trained.compress(images)).shape)
out["x64"] = jax.config.jax_enable_x64
print(json.dumps(out))
"""


def results(tmp_path, x64):
    done = subprocess.run(
        [sys.executable, "-c", CODE, RELEASED, tmp_path / x64],
        env={**os.environ, "JAX_ENABLE_X64": x64},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("x64") is (x64 == "1")
    return found


def test_models_files_and_runs_do_not_depend_on_the_default_precision(tmp_path):
    double = results(tmp_path, "1")
    assert double == results(tmp_path, "0")
    assert double["dtypes"] == ["float32", "int32"]
    assert double["encoded"][0] == double["sampled"][0] == double["traced"][0] == "float32"
