"""The images that are held out of a preliminary training, to calibrate and to set thresholds.

Frames of one turn of a fruit are near-twins, so that single held-out frames would flatter. Fruits-360 encodes the turn
and the frame in the file name: ``r2_57_100.jpg`` is frame 57 of the turn about the axis ``r2``. An arc of 66 frames,
about a fifth of a turn, is held out of each turn. Of other images, a fifth is held out, chosen by the hash of the path;
of numbered files, 20 consecutive ones together, because photographs are taken in series.
"""

from __future__ import annotations

import hashlib
import re

from fruits.text import name_bytes

FRAME = re.compile(r"^(?P<axis>r\d*)?_?(?:(?P<frame>\d+)_)?100\.jpg$")
NUMBER = re.compile(r"^(?P<series>.*?)(?P<number>\d{1,18})\.\w+$", re.DOTALL)
ARC = 66  # frames; a turn has 320 to 330
SERIES = 20  # files: of 40 photographs of one kind, half; those of one visit to a shop are near-twins
ONE_IN = 5


def series(path: str) -> str:
    """Return the name of the images that are held out, or not, together with this one: near-twins of it."""
    return _place(path)[0]


def is_held_out(path: str) -> bool:
    """Return whether the image with this path in its source is held out."""
    name, arc = _place(path)
    digest = hashlib.sha256(name_bytes(name)).digest()
    return (arc + int.from_bytes(digest[:8], "big")) % ONE_IN == 0


def _place(path: str) -> tuple[str, int]:
    """Return the series of an image, and the number of its arc in a turn, or 0."""
    folder, _, name = path.rpartition("/")
    if match := FRAME.match(name):
        return f"{folder}/{match['axis'] or ''}", int(match["frame"] or 0) // ARC
    if match := NUMBER.match(path):
        return f"{match['series']}{int(match['number']) // SERIES}", 0
    return path, 0
