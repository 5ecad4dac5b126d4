"""The console script ``cvae``: how a command begins and ends.

Imports take a while, and Python's answer to an interrupt in them is a traceback: until the command
itself is called, which may have something to clear away, the system's answer stands.

Imports also make a million objects and hardly any garbage.  Python would look through them again
and again while it imports, and once more when it ends, which takes longer than encoding an image
does: it collects no garbage before the command itself is called, and passes over what is there
then, and over what is left at the end.
"""

from __future__ import annotations

import gc
import signal


def run(argv: list[str] | None = None) -> None:
    """Imports the command, runs it, and leaves with its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    from cvae_jax.cli import parser

    try:
        parser.run(argv)
    finally:
        gc.freeze()


def imported() -> None:
    """Makes an interrupt a KeyboardInterrupt, and collects garbage, both of which ``run`` put off;
    to be called before a command's work."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
