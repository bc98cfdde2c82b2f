"""Time the numerics of the model beside float64, and compare its results with those of scikit-learn.

The cases take turns on one thread. A ratio is the median of the ratios of the turns, in CPU seconds, so that other
processes on the machine have little influence.
"""

from __future__ import annotations

import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from fruits.model.fingerprint import solver_fingerprint
from fruits.model.moments import Moments
from fruits.model.solver import solve

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ROWS = 1024  # of the unit of all costs but that of a solve
REPEATS = 5  # of the shortest case, in each turn
SUMMED = 8192  # rows of one sum: the products are carried once
UNIT = "float64 rows.T @ rows"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one case: medians over the turns.

    Attributes
    ----------
    cpu, wall : float
        CPU seconds, those of subprocesses included, and elapsed ones.
    ratio : float
        CPU seconds divided by those of :data:`UNIT` in the same turn.
    """

    cpu: float
    wall: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Largest differences from scikit-learn in float64, relative to its largest value.

    Attributes
    ----------
    scores : float
        Of the scores, after alignment of the signs.
    explained_variance : float
        Of the explained variance.
    rows, components : int
        Size of the comparison.
    """

    scores: float
    explained_variance: float
    rows: int
    components: int


def costs(features: Float32, components: int, turns: int) -> dict[str, Cost]:
    """Return the costs by name, with `features` of shape (n, d), n ≥ 1024, repeated or cut to 8,192 rows."""
    rows = np.resize(features, (SUMMED, features.shape[1]))
    unit = rows[:ROWS].astype(np.float64)
    whole = Moments.from_features(rows)
    data = whole.to_bytes()
    model = solve(whole, components)
    scaled = model.transform(rows[:ROWS])[0]
    labels = [f"class {row // 60}" for row in range(SUMMED)]
    cases: dict[str, tuple[Callable[[], object], int]] = {
        UNIT: (lambda: [unit.T @ unit for _ in range(REPEATS)], REPEATS),
        f"moments, in sums of {SUMMED:,} rows": (lambda: Moments.from_features(rows), SUMMED // ROWS),
        f"moments, in sums of {SUMMED:,} rows, with labels": (
            lambda: Moments.from_features(rows, labels),
            SUMMED // ROWS,
        ),
        f"moments of {ROWS:,} rows alone": (lambda: Moments.from_features(rows[:ROWS]), 1),
        "add two moments": (lambda: whole + whole, 1),
        "encode moments": (whole.to_bytes, 1),
        "decode moments": (lambda: Moments.from_bytes(data), 1),
        "derive standard deviation and correlation": (lambda: (whole.std(), whole.correlation()), 1),
        "solve, from the moments to the model": (lambda: solve(whole, components), 1),
        "solver fingerprint": (solver_fingerprint, 1),
        f"scaled features and {components} scores": (lambda: model.transform(rows[:ROWS]), 1),
        f"{components} scores alone, in float64": (lambda: scaled @ model.components.T, 1),
    }
    with threadpool_limits(1):
        seconds = [{name: _timed(*case) for name, case in cases.items()} for _ in range(turns)]
    return {
        name: Cost(
            cpu=statistics.median(turn[name][0] for turn in seconds),
            wall=statistics.median(turn[name][1] for turn in seconds),
            ratio=statistics.median(turn[name][0] / turn[UNIT][0] for turn in seconds),
        )
        for name in cases
    }


def _timed(call: Callable[[], object], units: int) -> tuple[float, float]:
    """Return the CPU seconds and the elapsed seconds of a call, divided by its number of units."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    call()
    wall = time.perf_counter() - start
    return (_cpu_seconds() - cpu) / units, wall / units


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_memory(features: Float32) -> int:
    """Return the bytes that summing features allocates at most, without the features."""
    rows = np.resize(features, (SUMMED, features.shape[1]))
    tracemalloc.start()
    Moments.from_features(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def accuracy(features: Float32, components: int) -> Accuracy:
    """Compare scores and explained variance with those of scikit-learn, computed without the grid."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    count = len(features)
    model = solve(Moments.from_features(features), components)
    ours = model.transform(features)[1]
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    pca = PCA(n_components=components, svd_solver="full").fit(scaled)
    to_sample = np.sqrt((count - 1) / count)  # scikit-learn divides by n, ScaledPCA by n - 1
    theirs = pca.transform(scaled) * to_sample
    theirs *= np.sign((theirs * ours).sum(axis=0))
    return Accuracy(
        scores=_relative(ours, theirs),
        explained_variance=_relative(model.explained_variance, pca.explained_variance_ * to_sample**2),
        rows=count,
        components=components,
    )


def _relative(values: Float64, reference: Float64) -> float:
    return float(np.abs(values - reference).max() / np.abs(reference).max())


def table(measured: Mapping[str, Cost]) -> str:
    """Return the costs as a table in Markdown."""
    lines = ["| per 1,024 rows | CPU ms | elapsed ms | ratio |", "| --- | ---: | ---: | ---: |"]
    for name, cost in measured.items():
        lines.append(f"| {name} | {1e3 * cost.cpu:.0f} | {1e3 * cost.wall:.0f} | {cost.ratio:.2f} |")
    return "\n".join(lines) + "\n"
