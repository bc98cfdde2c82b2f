"""How long a fit takes, from stored features to a stored model, and in how much memory of the driver.

::

    python -m benchmarks.moments --rows 67692 --backend dask

The features are generated, with the spectrum of real ones, and written to disk first; what is measured are the
stages that a job goes through: the tree of moments, the solution, the stored model.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time

import numpy as np

import backends
from fruits import tasks
from fruits.moments import Moments, levels
from fruits.rows import features_table
from fruits.scaled_pca import solve
from fruits.storage import Folder, part_name, write_table

FEATURES = 1280


def generate(out: Folder, rows: int, partition_size: int) -> int:
    """Write features of `rows` images as parts; return how many parts."""
    rng = np.random.default_rng(0)
    factors = (rng.standard_normal((256, FEATURES)) * np.geomspace(1, 0.05, 256)[:, None]).astype(np.float32)
    starts = range(0, rows, partition_size)
    for index, start in enumerate(starts):
        count = min(partition_size, rows - start)
        features = rng.standard_normal((count, 256), np.float32) @ factors
        features += 0.3 * rng.standard_normal((count, FEATURES), np.float32)
        names = [f"label/{start + number}" for number in range(count)]
        table = features_table(names, ["label"] * count, np.clip(features, 0, 6))
        (out / "features").write(part_name(index, "parquet"), write_table(table))
    return len(starts)


def main() -> None:
    """Measure fits, and print each and the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=67_692)
    parser.add_argument("--partition-size", type=int, default=1024)
    parser.add_argument("--components", type=int, default=200)
    parser.add_argument("--backend", default="dask", choices=list(backends.BACKENDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    taken = []
    with tempfile.TemporaryDirectory() as folder, backends.load(given.backend)(workers=given.workers) as executor:  # type: ignore[call-arg]
        out = Folder(folder)
        shards = generate(out, given.rows, given.partition_size)
        for _ in range(given.repeat):
            out.remove("moments")
            start = time.perf_counter()
            tree = levels(shards)
            for level in tree:
                executor.map(tasks.merge, level, shared=out)
            merged = time.perf_counter()
            moments = Moments.from_bytes(out.read(tasks.moments_name(len(tree), 0)))
            solve(moments, given.components).save(out / "model")
            taken.append(time.perf_counter() - start)
            print(f"moments {merged - start:.2f} s, solution {start + taken[-1] - merged:.2f} s, together {taken[-1]:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{given.rows:,} x {FEATURES} features, {shards} parts, {given.backend} with {given.workers} workers: median "
        f"{np.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f}), peak memory of the driver {peak:,.0f} MB"
    )


if __name__ == "__main__":
    main()
