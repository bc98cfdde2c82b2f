"""Read files of weights in a subprocess: ``python -m tests.hostile.read_weights FILE…``."""

from __future__ import annotations

import sys
from pathlib import Path

from fruits.network.weight_files import read_tensors, rejecting_corrupt
from tests.hostile.measure import print_measurements


def read(path: Path) -> int:
    with rejecting_corrupt(path.name):
        return len(read_tensors(path) or ())


if __name__ == "__main__":
    print_measurements([(Path(name).name, lambda path=Path(name): read(path)) for name in sys.argv[1:]])
