"""The model against scikit-learn: its fit, and its transform with an exported model. Spark: test_one_answer.py."""

import numpy as np
import pytest

from fruits.model.moments import Moments
from fruits.model.solver import solve

KEPT = 60


@pytest.fixture(scope="module")
def features():
    """Features like those of a network: non-negative, many small, two constant."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((80, 320)) * np.geomspace(1, 0.02, 80)[:, None]
    rows = rng.standard_normal((1500, 80)) @ factors + 0.2 * rng.standard_normal((1500, 320))
    rows = np.clip(rows, 0, 6).astype(np.float32)
    rows[:, [5, 77]] = 0.0
    return rows


@pytest.fixture(scope="module")
def model(features):
    """Model fitted by the sum of the moments of 15 parts."""
    parts = np.split(features, range(100, 1500, 100))
    return solve(Moments.sum_all(map(Moments.from_features, parts)), KEPT)


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_scikit_learn_fits_the_same_model(features, model):
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rows = features.astype(np.float64)
    # scikit-learn divides by n and ScaledPCA by n - 1, so that the scores differ by a constant factor.
    scores = PCA(n_components=KEPT, svd_solver="full").fit_transform(StandardScaler().fit_transform(rows))
    scores *= np.sqrt((len(rows) - 1) / len(rows))
    ours = model.transform(features)[1]
    scores *= np.sign((scores * ours).sum(axis=0))
    assert relative(ours, scores) <= 1e-9


def test_the_model_exported_to_scikit_learn_gives_the_same_scores(features, model):
    scaled, scores = model.transform(features)
    pipeline = model.to_sklearn()
    rows = features.astype(np.float64)
    assert relative(pipeline.transform(rows), scores) <= 1e-9
    assert np.array_equal(pipeline[:1].transform(rows), scaled)
    back = pipeline["pca"].inverse_transform(scores)
    assert back.shape == scaled.shape
    np.testing.assert_allclose(pipeline["pca"].explained_variance_ratio_, model.explained_variance_ratio)
