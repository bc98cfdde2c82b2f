"""How values that others chose are shown and stored as text: nothing steers a terminal, and nothing has no end."""

from __future__ import annotations

import re
import reprlib
from typing import Any

__all__ = ["brief", "duration", "printable", "quoted", "utf8", "without_secrets"]

# Credentials in an address (a secret key may hold slashes), and request signatures.
SECRET = re.compile(
    r'(?<=://)[^\s"\']*:[^\s"\']*(?=@)|(?<=[?&])((?:X-Amz-)?(?:Signature|Security-Token|sig|token)=)[^&\s"\']*',
    re.IGNORECASE,
)

LONGEST = 200  # characters of one value, or one name, in a message

_repr = reprlib.Repr()
_repr.maxlevel = 3
_repr.maxstring = _repr.maxlong = _repr.maxother = LONGEST
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 8


def brief(value: object) -> str:
    """Return a value as a message shows it, whatever its size: without its middle, and without what is deep in it."""
    text = value if isinstance(value, str) else quoted(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def quoted(value: object) -> str:
    """Return a value as Python writes it, as short as :func:`brief` does."""
    return _repr.repr(value)


def printable(text: str) -> str:
    """Return text with what would move the cursor, or turn the direction of writing, shown as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def utf8(value: Any) -> Any:
    """Return a value of JSON in which every text can be stored: bytes that are not UTF-8 are written in hexadecimal."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {utf8(key): utf8(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [utf8(held) for held in value]
    return value


def without_secrets(text: str) -> str:
    """Return text with the credentials in its addresses, and what signs them, as asterisks."""
    return SECRET.sub(r"\1***", text)


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``9.8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
