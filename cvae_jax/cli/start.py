"""The console script ``cvae``: an interrupt during its imports ends it without a traceback."""

from __future__ import annotations

import signal


def run(argv: list[str] | None = None) -> None:
    """Imports the command, runs it, and leaves with its exit status.

    Imports take a while, and Python's answer to an interrupt in them is a traceback: until the
    command itself is called, which may have something to clear away, the system's answer stands.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cvae_jax.cli import parser

    parser.run(argv)
