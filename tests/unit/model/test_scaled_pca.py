import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from threadpoolctl import threadpool_limits

from fruits.errors import DamageError, DatasetError, JobError, ModelError, SettingsError
from fruits.model import eigh as module
from fruits.model.components import choose_components, fix_signs
from fruits.model.eigh import eigh
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve


def sample(rows=200, features=12, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, features)) @ rng.standard_normal((features, features))
    return (mixed * rng.uniform(0.1, 50, features) + rng.uniform(-9, 9, features)).astype(np.float32)


@pytest.fixture
def features():
    return sample()


@pytest.fixture
def model(features):
    return solve(Moments.from_features(features), 5, network={"backbone": "MobileNetV2"})


def test_concurrent_solves_give_the_bits_of_a_single_one(features):
    moments = [Moments.from_features(features[:n]) for n in (40, 50, 60)]
    alone = [solve(m, 5).digest() for m in moments]
    with threadpool_limits(2), ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda m: solve(m, 5).digest(), moments * 4))
    assert together == alone * 4


@pytest.mark.parametrize("kernel", ["Haswell", "SkylakeX", "Zen", "Nehalem"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_eigenvectors_have_the_same_bits_with_every_kernel_and_number_of_threads(kernel, threads, tmp_path):
    matrix = np.cov(np.random.default_rng(3).standard_normal((900, 300)), rowvar=False)
    np.save(tmp_path / "matrix.npy", matrix)
    program = (
        "import sys, hashlib, numpy as np; from fruits.model.eigh import eigh; "
        "print(hashlib.sha256(b''.join(a.tobytes() for a in eigh(np.load(sys.argv[1])))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "matrix.npy"],
        env=os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(b"".join(array.tobytes() for array in eigh(matrix))).hexdigest()


def test_failed_solver_process_is_an_error(monkeypatch):
    monkeypatch.setattr("fruits.model.eigh.__file__", "/nowhere/eigh.py")
    with pytest.raises(JobError, match=r"exit code 2: .*/nowhere/eigh\.py.*run the same command again"):
        eigh(np.eye(3))


def test_a_cpu_that_cannot_execute_the_kernel_chooses_its_own(monkeypatch, tmp_path):
    script = tmp_path / "eigh.py"
    script.write_text(
        "import os, signal\n"
        "if 'OPENBLAS_CORETYPE' in os.environ:\n"
        "    os.kill(os.getpid(), signal.SIGILL)\n" + Path(module.__file__).read_text()
    )
    matrix = np.cov(np.random.default_rng(3).standard_normal((90, 30)), rowvar=False)
    expected = np.linalg.eigh(matrix)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(module, "__file__", str(script))
    values, vectors = eigh(matrix)
    np.testing.assert_allclose(values, expected[0], rtol=1e-12)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected[1]), atol=1e-9)


def test_scores_equal_those_of_a_singular_value_decomposition(features, model):
    rows = features.astype(np.float64)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    _, values, axes = np.linalg.svd(scaled, full_matrices=False)
    ours_scaled, scores = model.transform(features)
    np.testing.assert_allclose(ours_scaled, scaled, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.explained_variance, (values**2 / (len(rows) - 1))[:5], rtol=1e-10)
    np.testing.assert_allclose(np.abs(scores), np.abs(scaled @ axes[:5].T), rtol=1e-8, atol=1e-9)


def test_scaled_training_rows_have_mean_zero_and_variance_one(features, model):
    scaled, scores = model.transform(features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.var(axis=0, ddof=1), 1, rtol=1e-12)
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), model.explained_variance, rtol=1e-10)
    np.testing.assert_allclose(model.eigenvalues.sum(), 12, rtol=1e-12)


def test_constant_training_feature_scales_to_zero_on_varying_data(features):
    features[:, 3] = 7.25
    model = solve(Moments.from_features(features), 5)
    other = features.copy()
    other[:, 3] = 100.0
    scaled, scores = model.transform(other)
    assert model.scale[3] == 0
    assert not scaled[:, 3].any()
    assert np.array_equal(scores, model.transform(features)[1])


@given(hnp.arrays(np.float64, (4, 6), elements=st.floats(-1, 1)))
def test_largest_magnitude_loading_is_positive(components):
    fixed = fix_signs(components)
    assert np.array_equal(np.abs(fixed), np.abs(components))
    for row in fixed:
        largest = np.abs(row).max()
        assert largest == 0 or row[np.argmax(np.abs(row) == largest)] > 0


@pytest.mark.parametrize(
    ("components", "kept"), [(1, 1), (3, 3), (0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.9, 3), (0.999999, 4)]
)
def test_components_are_a_count_or_the_fewest_that_reach_a_fraction(components, kept):
    assert choose_components(np.array([0.5, 0.3, 0.15, 0.05]), components, 100) == kept


@pytest.mark.parametrize("fraction", [0.9999999999999999, 0.999999999999999, 0.99])
@pytest.mark.parametrize(
    ("rows", "distinct", "rank"), [(10, 10, 9), (10, 4, 3), (200, 200, 12), (13, 13, 12), (2, 2, 1)]
)
def test_no_fraction_selects_more_components_than_the_rank(fraction, rows, distinct, rank):
    features = sample(distinct)
    features = features[np.arange(rows) % distinct]
    model = solve(Moments.from_features(features), fraction)
    assert len(model.components) <= rank
    assert model.explained_variance_ratio.sum() == pytest.approx(
        1 if fraction > 0.999 else model.explained_variance_ratio.sum()
    )
    assert model.components_reaching(fraction) == len(model.components)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**19])
def test_moments_of_features_beyond_the_grid_are_damage(features, value):
    features[7, 3] = value
    with pytest.raises(DamageError, match="NaN, infinite"):
        Moments.from_features(features)


def test_too_many_components_are_rejected(features):
    solve(Moments.from_features(features[:6]), 5)
    with pytest.raises(SettingsError, match=r"`components` = 6: 6 images .* at most 5"):
        solve(Moments.from_features(features[:6]), 6)
    with pytest.raises(SettingsError, match="at most 12"):
        solve(Moments.from_features(features), 13)


def test_one_row_or_equal_rows_are_rejected(features):
    with pytest.raises(DatasetError, match="at least 2"):
        solve(Moments.from_features(features[:1]), 1)
    with pytest.raises(DatasetError, match="no feature varies"):
        solve(Moments.from_features(np.repeat(features[:1], 9, axis=0)), 1)


def test_features_of_another_length_are_rejected(model):
    with pytest.raises(ModelError, match="12 features"):
        model.transform(np.zeros((3, 11), np.float32))


@pytest.mark.parametrize("values", [["a.jpg"], [["a"] * 12], [[1.0], [1.0, 2.0]], [[None] * 12], [[1j] * 12]])
def test_features_that_are_no_numbers_are_rejected(model, values):
    with pytest.raises(ModelError, match=r"^features.*Allowed"):
        model.transform(values)


@pytest.mark.parametrize("shape", [(12,), (11,), (), (1, 3, 12)])
def test_features_that_are_not_rows_are_rejected_with_the_allowed_shape(model, shape):
    with pytest.raises(ModelError, match=r"Allowed: \(n, 12\).*vector\[numpy.newaxis\]"):
        model.transform(np.zeros(shape, np.float32))


def test_stored_model_is_read_back_bit_for_bit(model, tmp_path):
    model.save(str(tmp_path))
    again = ScaledPCA.load(str(tmp_path))
    for name in ("mean", "scale", "components", "eigenvalues"):
        assert getattr(again, name).tobytes() == getattr(model, name).tobytes()
    assert (again.rows, dict(again.network)) == (200, {"backbone": "MobileNetV2"})
    assert again.digest() == model.digest()


def test_storing_twice_writes_equal_bytes(model, tmp_path):
    for name in "ab":
        model.save(str(tmp_path / name))
    for file in ("model.json", "scaled_pca.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_any_changed_byte_is_rejected(model, tmp_path):
    model.save(str(tmp_path / "model"))
    rng = np.random.default_rng(0)
    for file in ("model.json", "scaled_pca.safetensors"):
        whole = (tmp_path / "model" / file).read_bytes()
        for place in rng.integers(0, len(whole), 60):
            shutil.copytree(tmp_path / "model", tmp_path / "changed", dirs_exist_ok=True)
            changed = bytearray(whole)
            changed[place] ^= 0x01
            (tmp_path / "changed" / file).write_bytes(changed)
            try:
                loaded = ScaledPCA.load(str(tmp_path / "changed"))
            except ModelError:
                continue
            # Only white space in model.json may change without effect.
            assert file == "model.json"
            assert loaded.digest() == model.digest()


def test_unknown_schema_is_rejected(model, tmp_path):
    model.save(str(tmp_path))
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(about | {"schema": "fruits.scaled_pca/9"}))
    with pytest.raises(ModelError, match=r"fruits.scaled_pca/9.*Allowed"):
        ScaledPCA.load(str(tmp_path))


def test_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(ModelError, match="no model found"):
        ScaledPCA.load(str(tmp_path))


def test_repr_of_a_model_is_one_short_line(model):
    share = model.explained_variance_ratio.sum()
    assert repr(model) == (
        f"ScaledPCA(features=12, components=5, rows=200, explained_variance_ratio={share:.4f}, backbone='MobileNetV2')"
    )


def test_list_of_rows_and_path_object_are_accepted(model, features, tmp_path):
    model.save(str(tmp_path))
    loaded = ScaledPCA.load(tmp_path)
    scaled, scores = loaded.transform(features[:3].tolist())
    expected = model.transform(features[:3].astype(np.float64))
    assert np.array_equal(scaled, expected[0])
    assert np.array_equal(scores, expected[1])
