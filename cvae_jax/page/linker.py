"""JavaScript modules joined into one script: what a page without files beside it can run.

Each module becomes a function that gives what it exports, in an order in which each comes after
what it imports; the same modules always give the same script.  Of the language it knows what
``web/src`` is written in, and refuses the rest: named imports and exports of what is not assigned
again, one statement a line or more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from cvae_jax.errors import ConfigError

Read = Callable[[PurePosixPath], str]

_NAMES = r"\{(?P<names>[^}]*)\}"
_IMPORT = re.compile(
    rf'^import (?:{_NAMES}|\* as (?P<space>\w+)) from "(?P<path>\.[^"]*)";$', re.MULTILINE
)
_AGAIN = re.compile(rf'^export {_NAMES} from "(?P<path>\.[^"]*)";$', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?P<rest>(?:const|class|(?:async )?function\*?) (?P<name>\w+))", re.MULTILINE
)
_OTHER = re.compile(r"^(?:import|export)\b.*|\bimport\s*\(.*|\bimport\.meta\b.*", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*\*?(?:[^*]|\*(?!/))*\*/[ \t]*)$\n?", re.MULTILINE)
# Where no quote follows, so that it is not a part of a text.
_TRAILING = re.compile(r"[ \t]+// [^\"'`\n]*$", re.MULTILINE)
_INDENT = re.compile(r"^[ \t]+|^\n", re.MULTILINE)


def link(entry: str, read: Read, given: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The script of a module and of all that it imports.

    entry: path of the module; read: gives the text of the module at a path; given: what
    modules export that there are no texts of, by their paths, as JSON can hold it.

    Raises:
      ConfigError: modules that import each other in a circle, or something that this cannot join.
    """
    made = dict(given or {})
    done: dict[PurePosixPath, str] = {}
    parts: list[str] = []

    def add(path: PurePosixPath, importing: tuple[PurePosixPath, ...]) -> str:
        """Appends a module after what it imports; returns the variable that holds its exports."""
        if path in importing:
            circle = " -> ".join(map(str, (*importing, path)))
            raise ConfigError(f"modules that import each other: {circle}")
        if path not in done:
            if str(path) in made:
                value = json.dumps(made[str(path)])
            else:
                body = _as_function(
                    read(path), path, lambda other: add(_beside(path, other), (*importing, path))
                )
                value = f"(() => {{\n{body}}})()"
            done[path] = f"module{len(done)}"
            parts.append(f"const {done[path]} = {value};\n")
        return done[path]

    add(PurePosixPath(entry), ())
    return '"use strict";\n' + "".join(parts)


def in_html(script: str) -> str:
    """A script as the text of an HTML ``script`` element, which it must not end.

    Raises:
      ConfigError: it holds what HTML takes for something else.
    """
    if "<!--" in script:
        raise ConfigError("a script with <!--, which HTML takes for something else")
    return re.sub("</(?=script)", r"<\\/", script, flags=re.IGNORECASE)


def _beside(path: PurePosixPath, other: str) -> PurePosixPath:
    parts: list[str] = []
    for part in (path.parent / other).parts:
        if part == "..":
            if not parts:
                raise ConfigError(f"{path}: it imports {other}, which is outside")
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _as_function(text: str, path: PurePosixPath, variable: Callable[[str], str]) -> str:
    """The body of a function that gives a module's exports.

    variable: that holds the exports of an imported module.
    """
    text = _without_comments(text, path)
    exports: list[str] = []
    imports: list[str] = []  # which count from the start, wherever they stand

    def imported(found: re.Match[str]) -> str:
        target = variable(found["path"])
        names = (": ".join(name) for name in _pairs(found["names"] or ""))
        name = found["space"] or f"{{ {', '.join(names)} }}"
        imports.append(f"const {name} = {target};\n")
        return ""

    def again(found: re.Match[str]) -> str:
        target = variable(found["path"])
        for name, *other in _pairs(found["names"]):
            exports.append(f"{(other or [name])[0]}: {target}.{name}")
        return ""

    def exported(found: re.Match[str]) -> str:
        exports.append(found["name"])
        return found["rest"]

    text = _EXPORT.sub(exported, _AGAIN.sub(again, _IMPORT.sub(imported, text)))
    if other := _OTHER.search(text):
        raise ConfigError(f"{path}: cannot join {other[0].strip()[:80]!r}")
    body = "".join(imports) + _INDENT.sub("", text)
    return f"{body}return {{ {', '.join(exports)} }};\n" if exports else body


def _pairs(names: str) -> list[list[str]]:
    """``a, b as c`` as ``[[a], [b, c]]``."""
    return [name.split(" as ") for name in (part.strip() for part in names.split(",")) if name]


def _without_comments(text: str, path: PurePosixPath) -> str:
    """Without the comments that have lines of their own, and most that end one.

    Raises:
      ConfigError: a template literal goes over several lines, whose text must stay as it is.
    """
    text = _TRAILING.sub("", _COMMENT.sub("", text.replace("\r\n", "\n") + "\n"))
    for line in text.splitlines():
        if line.replace("\\`", "").count("`") % 2:
            raise ConfigError(f"{path}: cannot join a text in ` over several lines: {line[:80]!r}")
    return text
