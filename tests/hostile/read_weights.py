"""Read files of weights in a process of its own: ``python -m tests.hostile.read_weights FILE…``."""

from __future__ import annotations

import sys
from pathlib import Path

from fruits.network.build import _read, _refusing
from tests.hostile.measure import print_measurements


def read(path: Path) -> int:
    with _refusing(path.name):
        return len(_read(path) or ())


if __name__ == "__main__":
    print_measurements([(Path(name).name, lambda path=Path(name): read(path)) for name in sys.argv[1:]])
