"""All variance: a fraction of 1 keeps every component of the numerical rank."""

import numpy as np

from fruits.model.moments import Moments
from fruits.model.solver import solve


def test_a_fraction_of_one_keeps_the_rank():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((40, 3)) @ rng.standard_normal((3, 8))).astype(np.float32)
    features[:, 5] = 1.0
    assert len(solve(Moments.from_features(features), 1.0).components) <= 7
    assert solve(Moments.from_features(features), 1.0).explained_variance_ratio.sum() > 1 - 1e-12
    few = solve(Moments.from_features(rng.standard_normal((4, 8)).astype(np.float32)), 1.0)
    assert len(few.components) == 3
