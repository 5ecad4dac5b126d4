"""Names of images: data in a file, and paths only once they are known to be harmless."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

from cvae_jax.bitstream.records import MAX_NAME
from cvae_jax.errors import FormatError

MAX_COMPONENT = 200  # bytes of a file's or a folder's name; leaves room for a suffix
MAX_PARTS = 32  # folders inside each other, and the file

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\:*?"<>|]')
# What changes the direction of the text around it makes one name look like another.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Devices of Windows, in every folder and whatever their suffix.
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3]) *(\..*)?", re.IGNORECASE
)


def check_names(names: Sequence[str], *, longest: int = MAX_COMPONENT) -> None:
    """Refuses names that could leave the folder they are meant for, or overwrite each other.

    longest: bytes of UTF-8 that each part of a name may have.

    Raises:
      FormatError: naming the first that is absolute, has ``..``, backslashes, control
        characters, direction marks or a drive letter, is no Unicode text, is a device of
        Windows, is too long or too deep, or is there twice or also a folder.
    """
    for name in names:
        if fault := _fault(name, longest):
            raise _refused(name, fault)
    check_distinct(names)


def check_distinct(names: Sequence[str]) -> None:
    """Refuses names of which two would be one file, or one a file and a folder, on some system.

    Raises:
      FormatError: naming the first.
    """
    files: dict[str, str] = {}
    for name in names:
        key = _key(name)
        if key in files:
            twin = "" if files[key] == name else f", once as {files[key][:80]!r}"
            raise _refused(name, f"it is there twice{twin}")
        files[key] = name
    # Once "/" comes before every other character, what is in a folder comes right after its name.
    in_order = sorted(files, key=lambda key: key.replace("/", "\0"))
    for key, following in itertools.pairwise(in_order):
        if following.startswith(key + "/"):
            raise _refused(files[key], "it is also a folder")


def _fault(name: str, longest: int) -> str | None:
    if _FORBIDDEN.search(name):
        return "a character that not every system allows"
    if _DIRECTION.search(name):
        return "a mark that changes the direction of text"
    if len(name.encode()) > MAX_NAME:
        return f"more than {MAX_NAME} bytes"
    if name.count("/") >= MAX_PARTS:
        return f"more than {MAX_PARTS} parts"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "an absolute path, or one with empty, . or .. parts"
    if any(len(part.encode()) > longest for part in parts):
        return f"a part of more than {longest} bytes"
    if any(part.endswith((" ", ".")) for part in parts):
        return "a part that ends in a space or a dot"
    if any(_RESERVED.fullmatch(part) for part in parts):
        return "a part that is a device on Windows"
    return None


def _key(name: str) -> str:
    """Equal for names that some system takes for one: of other case, or composed otherwise."""
    if name.isascii():
        return name.casefold()
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFC", folded)


def _refused(name: str, fault: str) -> FormatError:
    return FormatError(f"the name {name[:80]!r} is refused: {fault}")
