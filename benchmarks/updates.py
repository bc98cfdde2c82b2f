"""Time updates of a folder of images against a new fit, on one open executor: ``python -m benchmarks.updates IMAGES``.

The folder is filled with copies of IMAGES. One percent of them is deleted, added, and changed, and each time the fit is
updated. No rows are written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import backends
from fruits.executor import Executor
from fruits.images.decode import EXTENSIONS
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import Job

EVERY = 100  # one image of so many changes
COMPONENTS = 200


def measure(images: Path, place: Path, backend: str, count: int, workers: int) -> dict[str, float]:
    """Return the seconds of a new fit and of each update; raise if an update differs from a new fit."""
    folder, out = place / "images", place / "out"
    copies = _fill(folder, images, count)
    job = Job(images=str(folder), out=str(out), components=COMPONENTS)
    update = Job(images=str(folder), out=str(out), components=COMPONENTS, update=True)
    with backends.load(backend)(workers=workers) as executor:  # type: ignore[call-arg]
        warm = Job(images=str(folder), out=str(place / "warm"), components=2, limit=64)
        pipeline.fit(warm, executor)
        seconds = {"new": _timed(job, executor)}
        for name, change in _changes(copies).items():
            change()
            seconds[name] = _timed(update, executor)
        fresh = Job(images=str(folder), out=str(place / "fresh"), components=COMPONENTS)
        pipeline.fit(fresh, executor)
    if not compare(fresh.out, update.out).identical:
        raise AssertionError("the updated model differs from that of a new fit")
    return seconds


def _fill(folder: Path, images: Path, count: int) -> Sequence[tuple[Path, Path]]:
    """Fill a folder with copies of images; return pairs of an original and its copy."""
    originals = sorted(path for path in images.rglob("*") if path.suffix.lower() in EXTENSIONS)
    pairs = []
    for number, original in enumerate(itertools.islice(itertools.cycle(originals), count)):
        copy = folder / original.parent.name / f"{number // len(originals)}-{original.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(original, copy)
        pairs.append((original, copy))
    return pairs


def _changes(pairs: Sequence[tuple[Path, Path]]) -> dict[str, Callable[[], None]]:
    some, others = pairs[::EVERY], pairs[EVERY // 2 :: EVERY]

    def delete() -> None:
        for _, copy in some:
            copy.unlink()

    def add() -> None:
        for original, copy in some:
            shutil.copy2(original, copy)

    def touch() -> None:
        for _, copy in others:
            os.utime(copy)

    return {"deleted": delete, "added": add, "changed": touch}


def _timed(job: Job, executor: Executor) -> float:
    begin = time.perf_counter()
    pipeline.fit(job, executor)
    return time.perf_counter() - begin


def main() -> None:
    """Print the seconds of each turn and the median of the shares of a new fit, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.updates", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--backend", default="dask", choices=list(backends.BACKENDS))
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    turns = []
    for _ in range(options.turns):
        with tempfile.TemporaryDirectory(prefix="fruits-updates-") as place:
            turns.append(measure(options.images, Path(place), options.backend, options.count, options.workers))
    shares = {name: round(median(turn[name] / turn["new"] for turn in turns), 4) for name in turns[0] if name != "new"}
    rounded = [{name: round(seconds, 2) for name, seconds in turn.items()} for turn in turns]
    print(json.dumps({"images": options.count, "seconds": rounded, "share of a new fit": shares}, indent=2))


if __name__ == "__main__":
    main()
