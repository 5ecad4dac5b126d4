"""All choices that depend on the machine, in one place."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def microbatch_size() -> int:
    """How many images go through the network at once.

    On CPU the temporaries of 32 images stay in the cache; with 128 at once, training was half as
    fast.  The size for accelerators has not been measured.
    """
    return 32 if on_cpu() else 4096


def epoch_is_one_dispatch() -> bool:
    """Whether an epoch runs as one compiled loop or as a Python loop over steps.

    One dispatch keeps an accelerator busy.  On CPU both measured the same (2,100 to 2,400
    images/s, batch 128), and a Python loop can show progress and stop between steps.
    """
    return not on_cpu()


def dispatch_inline() -> None:
    """Makes JAX run CPU computations in the thread that calls them.

    Handing them to another thread, JAX's default, takes longer than encoding an image does.
    Has no effect once JAX has started, and on accelerators.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_compilation_cache() -> None:
    """Keeps compiled functions between runs, in the user's cache directory.

    The cache holds executable code: the directory is the user's own and closed to others.
    ``JAX_COMPILATION_CACHE_DIR`` chooses another place.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = base / "cvae_jax" / "xla"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.stat().st_uid != os.getuid():
            return
        cache.chmod(0o700)
    except (OSError, RuntimeError):
        return  # no home, or a read-only one: compile every time
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
