"""The compilation cache: the user's own, closed to others, and really used."""

import os
import stat
import subprocess
import sys

from conftest import ROOT

COMPILE = """
import jax, jax.numpy as jnp
from cvae_jax import backend
backend.use_compilation_cache()
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jnp.linalg.inv(jnp.sin(x) @ jnp.cos(x).T))(jnp.eye(64)).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits"))
"""


def hits(**environment):
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**env, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    assert hits(**environment) == 0
    cache = tmp_path / "cvae_jax" / "xla"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert hits(**environment) > 0


def test_without_a_place_for_it_everything_still_runs(tmp_path):
    (tmp_path / "file").write_text("")
    assert hits(XDG_CACHE_HOME=str(tmp_path / "file")) == 0
