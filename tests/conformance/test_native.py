"""The engines' own estimators against the exact solver."""

import numpy as np
import pytest

import backends
from fruits.errors import DatasetError, SettingsError
from fruits.executor import NativeSolver, native_solver
from fruits.model.moments import Moments
from fruits.model.rows import features_table
from fruits.model.solver import solve
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table
from tests.conformance.conftest import ENGINES


@pytest.fixture
def native(engine, executor):
    assert isinstance(executor, NativeSolver) == ENGINES[engine].native
    if not ENGINES[engine].native:
        pytest.skip(f"{engine} has no estimators")
    return native_solver(executor)


@pytest.fixture
def store(tmp_path):
    """Return a function that stores features in parts of 64 rows; the folder's name has glob and URL characters."""

    def stored(features):
        folder = Folder.at(str(tmp_path / "a [b]{c} #%20*é"))
        shards = [*np.split(features, range(64, len(features), 64)), features[:0]]
        for index, shard in enumerate(shards):
            table = features_table([""] * len(shard), [None] * len(shard), shard)
            folder.write(part_name(index, "parquet"), write_table(table))
        names = [f"{folder.address}/{part_name(index, 'parquet')}" for index in range(len(shards))]
        return names, [len(shard) for shard in shards]

    return stored


def generated(rows, width):
    rng = np.random.default_rng(rows)
    features = rng.standard_normal((rows, 6)) @ rng.standard_normal((6, width)) + rng.standard_normal((rows, width))
    features[:, 3] = 0.1  # constant, and not exact in binary
    return features.astype(np.float32)


@pytest.mark.parametrize(("rows", "components"), [(300, 10), (300, 0.6), (20, 5)])
def test_native_model_equals_the_exact_model(native, store, rows, components):
    features = generated(rows, 40)
    exact = solve(Moments.from_features(features), components)
    fitted = native.fit_native(*store(features), components)
    assert fitted.components.shape == exact.components.shape
    assert fitted.rows == rows
    assert fitted.scale[3] == 0
    np.testing.assert_allclose(fitted.mean, exact.mean, rtol=1e-9)
    np.testing.assert_allclose(fitted.scale, exact.scale, rtol=1e-9)
    np.testing.assert_allclose(fitted.explained_variance, exact.explained_variance, rtol=1e-9)
    np.testing.assert_allclose(fitted.eigenvalues, exact.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(fitted.transform(features)[1], exact.transform(features)[1], atol=1e-6)


def test_too_few_rows_are_rejected(native, store):
    with pytest.raises(DatasetError, match="at least 2"):
        native.fit_native(*store(generated(1, 40)), 1)


def test_backend_without_estimators_is_rejected():
    with backends.load("local")() as executor, pytest.raises(SettingsError, match=r"`solver` exact"):
        native_solver(executor)
