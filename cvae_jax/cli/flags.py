"""Flags in two spellings (``--data-dir`` and ``--data_dir``), and the numbers in them."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from cvae_jax.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser whose flags are declared with hyphens and may be given with underscores."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([_hyphenated(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError, so that wrong use is reported as every other error is."""
        raise ConfigError(f"{message}; see {self.prog} --help")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._command(found)._refuse(unknown)
        return found

    def _command(self, found: argparse.Namespace) -> Parser:
        """The parser of the command that was given."""
        for action in self._actions:
            if action.dest == "command" and isinstance(action.choices, Mapping):
                return action.choices[found.command]
        return self

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        flag = unknown[0].partition("=")[0]
        close = difflib.get_close_matches(flag, self._option_string_actions, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")


def finite(text: str) -> float:
    """A number, for ``type=``: neither NaN nor infinite, which every comparison would let pass."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, not {text}")
    return number


finite.__name__ = "number"  # as argparse names it: "invalid number value: 'x'"


def positive(text: str) -> float:
    """A finite number above 0, for ``type=``."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text}")
    return number


positive.__name__ = "number"


def _hyphenated(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word
