"""Add, remove or replace images between a run and its restart, or between planning and reading."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.storage.parquet import vectors
from tests.chaos.site import Site, Tally, Violation, paths

BACKENDS = ("local", "dask")
CHANGED = 3  # images per fault


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Change the images of one job at a random moment, with or without a restart."""
    where = site.where(backend)
    kind = random.choice(sorted(KINDS))
    restart = random.random() < 0.5
    copy = site.root / "changing"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(site.images, copy)
    with site.out() as out:
        moment = site.moment(random, out, ("commits", "rejects", "features"))
        assert moment is not None
        with site.command(out, *where, images=copy) as command:
            if not command.reaches(moment):
                tally.seen["moments missed"] += 1
                return
            if restart:
                command.kill(group=True)
            names = KINDS[kind](copy, random)
            tally.faults[f"{kind} {'before the restart' if restart else 'in mid-job'}"] += 1
            if not restart:
                command.done()
        if restart:
            with site.command(out, *where, images=copy) as command:
                answer = command.wait()
            if command.process.returncode != 2 or "another job" not in answer["error"]["message"]:
                raise Violation(f"{out.name}: {kind} at {moment}, not rejected as another job: {answer}")
            tally.seen["rejected as another job"] += 1
        else:
            _check_mixed(site, out, names, tally)


def _check_mixed(site: Site, out: Path, names: set[str], tally: Tally) -> None:
    """Check that every image is accounted for once, changed images as rejects or with their listed version."""
    accounted = sorted(path for name in ("rows", "rejects") for path in paths(out / name))
    if accounted != sorted(site.listed):
        raise Violation(f"{out.name}: listed {len(site.listed)} images, accounted for {len(accounted)}")
    before, after = _features(site.undisturbed), _features(out)
    if wrong := [path for path in after if not np.array_equal(after[path], before[path])]:
        raise Violation(f"{out.name}: different features of {wrong}")
    lost = before.keys() - after.keys()
    if not lost <= names:
        raise Violation(f"{out.name}: rejected without a change: {sorted(lost - names)}")
    tally.seen["changed images rejected"] += len(lost)
    tally.seen["jobs finished"] += 1


def _features(out: Path) -> dict[str, np.ndarray]:
    table = pa.concat_tables([pq.read_table(part) for part in sorted((out / "features").glob("part-*"))])
    return dict(zip(table["path"].to_pylist(), vectors(table["features"]), strict=True))


def _some(folder: Path, random: Random) -> list[Path]:
    return random.sample(sorted(path for path in folder.rglob("*.jpg") if path.stat().st_size), CHANGED)


def _add(folder: Path, random: Random) -> set[str]:
    for number, image in enumerate(_some(folder, random)):
        shutil.copyfile(image, image.with_name(f"added-{number}.jpg"))
    return set()


def _remove(folder: Path, random: Random) -> set[str]:
    chosen = _some(folder, random)
    for image in chosen:
        image.unlink()
    return {str(image.relative_to(folder)) for image in chosen}


def _replace(folder: Path, random: Random) -> set[str]:
    chosen = _some(folder, random)
    for image in chosen:
        image.write_bytes(image.read_bytes() + b"\0")  # the same pixels in a different file
    return {str(image.relative_to(folder)) for image in chosen}


def _replace_alike(folder: Path, random: Random) -> set[str]:
    chosen = _some(folder, random)
    for image in chosen:
        data = bytearray(image.read_bytes())
        data[len(data) // 2] ^= 1
        image.write_bytes(data)
    return {str(image.relative_to(folder)) for image in chosen}


KINDS: dict[str, Callable[[Path, Random], set[str]]] = {
    "added": _add,
    "removed": _remove,
    "replaced": _replace,
    "replaced by the same size": _replace_alike,
}
