"""Text for display and storage: escape control characters, truncate long values, remove secrets."""

from __future__ import annotations

import json
import os
import re
import reprlib
from typing import Any

# Credentials and signatures in URLs. "::" chains the URLs of fsspec, and a colon before digits separates a port.
SECRET = re.compile(
    r"""
    (?P<s3>\bs3[an]?://) (?!arn:) [^\s/:@]* : (?:(?!::\w+://)\S)* @         # a secret key may contain slashes
    | (?P<http>\bhttps?://) [^\s/?\#]* @                                   # also a token without a colon
    | (?<!\bs3)(?<!\bs3a)(?P<url>://) [^\s/:@]* : (?!:) (?!\d{1,5}(?:[/?\#\s]|$))
        (?: [^\s/?\#]* @ | (?:(?!::\w+://)\S)* @ )                         # user and password
    | (?P<parameter>[?&\#](?: X-(?:Amz|Goog)-[\w-]+ | AWSAccessKeyId | GoogleAccessId | Key-Pair-Id | Policy | Expires
        | sig | se | st                                                    # Azure's signature, and its times
        | [\w-]*(?:signature|token|secret|password|passwd|credential|api[_-]?key) ) =) [^&\s"'\#]*
    """,
    re.IGNORECASE | re.VERBOSE,
)

# A backslash that, left as it is, could be read as one that name_text inserted.
ESCAPE_LIKE = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")

NOT_IN_NAMES = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # Python refuses file names with these characters

MAX_CHARACTERS = 200  # of one value or name in a message

_repr = reprlib.Repr()
_repr.maxlevel = 3
_repr.maxstring = _repr.maxlong = _repr.maxother = MAX_CHARACTERS
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 8


def brief(value: object) -> str:
    """Return a value as text for a message: truncated in the middle, nested values abbreviated."""
    return shortened(value if isinstance(value, str) else quoted(value), MAX_CHARACTERS)


def shortened(text: str, most: int) -> str:
    """Return a text truncated in the middle to `most` characters and an ellipsis."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def quoted(value: object) -> str:
    """Return the repr of a value, with the limits of :func:`brief`."""
    return _repr.repr(value)


def printable(text: str) -> str:
    """Escape control characters and characters that change the direction of writing."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """Escape the characters of :func:`printable` in each line."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Escape the characters of :func:`printable` in JSON, in the form of JSON."""
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def canonical(name: str) -> str:
    """Return a name that the operating system gave, decoded as UTF-8 whatever the locale is; others unchanged."""
    try:
        return bytes_name(os.fsencode(name))
    except UnicodeEncodeError:  # from a program: open_store refuses a lone surrogate
        return name


def native(path: str) -> str:
    """Return a canonical path as the operating system's functions need it in this locale: the same in UTF-8."""
    return os.fsdecode(name_bytes(path))


def name_bytes(name: str) -> bytes:
    """Return the bytes of a canonical name, in whose order lists of images are: for UTF-8, that of code points."""
    return name.encode("utf-8", "surrogateescape")


def bytes_name(data: bytes) -> str:
    """Return the canonical name of bytes; the inverse of :func:`name_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def name_text(name: str) -> str:
    r"""Return a file name as valid Unicode: different names give different texts.

    A byte that is not UTF-8, which Python represents as a lone surrogate, becomes ``\xff``. In a name that contains
    such a sequence of characters already, its backslash becomes ``\x5c``. All other names are unchanged.
    """
    if name.isascii() and "\\" not in name:  # a tenth of the time, for every image of a list
        return name
    return name_bytes(ESCAPE_LIKE.sub(r"\\x5c", name)).decode("utf-8", "backslashreplace")


def utf8(value: Any) -> Any:
    """Return a JSON value in which bytes of file names that are not UTF-8 are escaped in hexadecimal."""
    if isinstance(value, str):
        return name_bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {utf8(key): utf8(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [utf8(item) for item in value]
    return value


def without_secrets(text: str) -> str:
    """Replace credentials and signatures in URLs by asterisks; the result still identifies a folder."""
    return SECRET.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kept = match[match.lastgroup or 0]
    return f"{kept}***" + "@" * (match.lastgroup != "parameter")


def counted(count: int, unit: str) -> str:
    """Format a count with its unit, which is given in the singular: ``1 image``, ``1,200 images``, ``2 classes``."""
    return f"{count:,} {unit}" + ("" if count == 1 else "es" if unit.endswith("s") else "s")


def per_second(rate: float, unit: str) -> str:
    """Format a speed: ``226 images/s``, ``4.2 images/s``, ``0.05 labels/s``."""
    return f"{rate:,.{0 if rate >= 10 else 1 if rate >= 0.1 else 2}f} {unit}/s"


def duration(seconds: float) -> str:
    """Format seconds: ``9.8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
