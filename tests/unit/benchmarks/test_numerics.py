from __future__ import annotations

import numpy as np

from benchmarks.numerics.measure import UNIT, Cost, accuracy, costs, peak_memory, table


def features(rows: int, dimension: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((40, dimension)) * np.geomspace(1, 0.05, 40)[:, None]
    values = rng.standard_normal((rows, 40)) @ factors + 0.3 * rng.standard_normal((rows, dimension))
    return np.clip(values, 0, 6).astype(np.float32)


def test_scores_and_variances_agree_with_scikit_learn() -> None:
    found = accuracy(features(1500, 200), 50)
    assert (found.rows, found.components) == (1500, 50)
    assert found.scores <= 1e-9
    assert found.explained_variance <= 1e-12


def test_a_sum_needs_at_most_120_megabytes() -> None:
    assert peak_memory(features(1024, 1280)) <= 120e6


def test_every_cost_is_in_the_table() -> None:
    measured = costs(features(1024, 30), 5, turns=1)
    assert measured[UNIT].ratio == 1
    assert all(cost.wall > 0 for cost in measured.values())
    lines = table(measured).splitlines()
    assert len(lines) == 2 + len(measured)
    assert (
        table({"a case": Cost(cpu=0.0123, wall=0.0456, ratio=2.345)}).splitlines()[2] == "| a case | 12 | 46 | 2.35 |"
    )
