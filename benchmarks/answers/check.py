"""Compare a run's answer with the reference, so that a fast wrong answer is not ranked.

This project's answers must be bit-identical to the reference. Those of other tools may differ within the tolerances
below, because they run another inference engine or linear algebra on the same pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from threadpoolctl import threadpool_limits

from benchmarks.answers.reference import Reference, fit_parts, read_features, read_parts
from benchmarks.cases import Case
from benchmarks.inputs.keys import expected_digest, expected_manifest_digest
from benchmarks.record import Agreement
from benchmarks.scenarios import EQUAL
from fruits.model.rows import decode_rows
from fruits.model.scaled_pca import ScaledPCA

# TensorFlow, in peers with Keras, differs from OpenVINO by at most 4e-5 on the same pixels, with a cosine of 1 - 3e-11.
# Other pixels are detected: another JPEG decoder gives a cosine of 0.998, TensorFlow's own bicubic resize 0.967.
LARGEST, COSINE = 1e-3, 0.999999
# Peers with Keras decode at full size what Fruits reduces; docs/performance.md has the difference.
LARGE = 1.0  # megapixels
LARGE_LARGEST, LARGE_COSINE = 2.0, 0.998
MODEL_LARGEST = 1e-6  # in means, deviations and loadings (float64); solvers differ by 1e-12 after alignment of signs
LEADING, CORRELATION = 10, 0.99  # least correlation of the scores of a peer's leading components

Float32 = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.floating]


def check(case: Case, kind: str, data: Path, out: Path, reference: Reference | None, model: Path | None) -> Agreement:
    """Compare the answer in `out` with the expected one.

    Parameters
    ----------
    case : Case
    kind : str
        Kind of the answer: ``Scenario.answer``.
    data, out : Path
        Input and output folder of the run.
    reference : Reference or None
        Needed for scenarios on images.
    model : Path or None
        Fitted model that the run was given.
    """
    if kind == "plan":
        return _check_plan(case, out)
    if kind == "csv":
        return _check_csv(data, out, ScaledPCA.load(str(model)))
    if kind == "model":
        if case.scenario == "moments":
            expected = fit_parts(read_parts(data / "features"), case.components)
        else:
            assert reference is not None
            expected = reference.model(data, case.components)
        return compare_models(ScaledPCA.load(str(out)), expected, exact=case.backend in ("dask", "spark", "local"))
    assert reference is not None
    if kind == "rows":
        fitted = reference.model(data, case.components) if model is None else ScaledPCA.load(str(model))
        expected_rows = reference.rows(data, fitted)
        return _check_rows(out / "rows", reference.features(data)[0], expected_rows)
    exact = not case.scenario.startswith(("peer-", "run-peer-"))
    reduces = case.scenario.removeprefix("run-") in EQUAL
    tolerance = (LARGE_LARGEST, LARGE_COSINE) if case.megapixels > LARGE and not reduces else (LARGEST, COSINE)
    agreement = compare_features(out / "features", *reference.features(data), exact=exact, tolerance=tolerance)
    if case.scenario.startswith("run-") and agreement.verdict != "wrong":
        fitted = reference.model(data, case.components)
        return _check_scores(out / "rows", agreement, reference.rows(data, fitted))
    return agreement


def compare_features(
    folder: Path,
    paths: list[str],
    expected: Float32,
    *,
    exact: bool,
    tolerance: tuple[float, float] = (LARGEST, COSINE),
) -> Agreement:
    """Compare stored features with those expected for `paths`.

    `exact` requires equal bits, otherwise `tolerance` is the largest difference and the least cosine.
    """
    stored_paths, stored, _ = read_features(folder)
    digest = _digest("\0".join(stored_paths).encode(), stored)
    if stored_paths != paths or stored.shape != expected.shape:
        return _wrong("features", digest, _difference_of_paths(stored_paths, paths))
    largest, cosine = _largest(stored, expected), _cosine(stored, expected)
    if np.array_equal(stored, expected):
        return Agreement(what="features", verdict="identical", digest=digest, cosine=cosine)
    if exact:
        detail = f"must be bit-identical; differ by up to {largest:.2g}"
        return _wrong("features", digest, detail, largest, cosine)
    most, least = tolerance
    if largest <= most and cosine >= least:
        return Agreement(what="features", verdict="close", digest=digest, largest=largest, cosine=cosine)
    detail = f"differ by up to {largest:.2g} (allowed: {most}), least cosine {cosine:.5f} (required: {least})"
    return _wrong("features", digest, detail, largest, cosine)


def compare_models(fitted: ScaledPCA, expected: ScaledPCA, *, exact: bool) -> Agreement:
    """Compare a fitted model with the expected one; `exact` requires equal bits."""
    digest = fitted.digest()
    if digest == expected.digest():
        return Agreement(what="model", verdict="identical", digest=digest, cosine=1.0)
    if fitted.components.shape != expected.components.shape:
        detail = f"components of shape {fitted.components.shape}; expected {expected.components.shape}"
        return _wrong("model", digest, detail)
    pairs = [(getattr(fitted, name), getattr(expected, name)) for name in ("mean", "scale", "components")]
    largest = max(_largest(one, other) for one, other in pairs)
    cosine = _cosine(fitted.components, expected.components)
    if exact:
        return _wrong("model", digest, f"must be bit-identical; differs by up to {largest:.2g}", largest, cosine)
    if largest <= MODEL_LARGEST:
        return Agreement(what="model", verdict="close", digest=digest, largest=largest, cosine=cosine)
    detail = f"differs by up to {largest:.2g} (allowed: {MODEL_LARGEST:g})"
    return _wrong("model", digest, detail, largest, cosine)


def _check_rows(folder: Path, paths: list[str], expected: dict[str, Float32]) -> Agreement:
    stored_paths, features, others = read_features(folder)
    columns = {"features": features, **others}
    digest = _digest("\0".join(stored_paths).encode(), *(columns[name] for name in sorted(columns)))
    if stored_paths != paths or columns.keys() != expected.keys():
        return _wrong("rows", digest, _difference_of_paths(stored_paths, paths) or f"columns {', '.join(columns)}")
    for name, values in expected.items():
        if columns[name].shape != values.shape:
            return _wrong("rows", digest, f"{name} of shape {columns[name].shape}; expected {values.shape}")
        if not np.array_equal(columns[name], values):
            largest = _largest(columns[name], values)
            return _wrong("rows", digest, f"{name} must be bit-identical; differ by up to {largest:.2g}", largest)
    return Agreement(what="rows", verdict="identical", digest=digest, cosine=1.0)


def _check_scores(folder: Path, features: Agreement, expected: dict[str, Float32]) -> Agreement:
    """Compare the scores of a peer's leading components by correlation, which ignores signs and centring."""
    _, _, others = read_features(folder)
    scores = others["pca_features"][:, :LEADING]
    pairs = zip(scores.T, expected["pca_features"][:, :LEADING].T, strict=True)
    least = min(abs(float(np.corrcoef(one, other)[0, 1])) for one, other in pairs)
    if least >= CORRELATION:
        detail = f"scores of the {scores.shape[1]} leading components correlate by at least {least:.4f}"
        return replace(features, what="rows", verdict="close", detail=detail)
    detail = f"scores of a leading component correlate by {least:.3f} (required: {CORRELATION})"
    return _wrong("rows", features.digest, detail, features.largest, features.cosine)


def _check_plan(case: Case, out: Path) -> Agreement:
    plan = orjson.loads((out / "plan.json").read_bytes())
    if plan["images"] != case.images:
        return _wrong("plan", plan["digest"], f"{plan['images']:,} keys; expected {case.images:,}")
    expected = expected_manifest_digest if case.scenario == "plan-manifest" else expected_digest
    if plan["digest"] != expected(case.images):
        return _wrong("plan", plan["digest"], "keys, sizes or ETags differ from those generated")
    return Agreement(what="plan", verdict="identical", digest=plan["digest"])


def _check_csv(data: Path, out: Path, model: ScaledPCA) -> Agreement:
    digest = hashlib.sha256()
    stored = sorted((out / "rows").glob("*.csv"))
    for path, features in zip(stored, read_parts(data / "features"), strict=True):
        content = path.read_bytes()
        digest.update(content)
        decoded = decode_rows(content, path.name)
        with threadpool_limits(1):  # as on a worker
            scaled, scores = model.transform(features)
        expected: dict[str, Vectors] = {"features": features, "scaled_features": scaled, "pca_features": scores}
        for name, values in expected.items():
            if not np.array_equal(np.asarray(decoded[name]), values.astype(np.float32)):
                return _wrong("csv", digest.hexdigest(), f"{path.name}: {name} differ from the expected rows")
    return Agreement(what="csv", verdict="identical", digest=digest.hexdigest())


def _wrong(what: str, digest: str, detail: str, largest: float = -1.0, cosine: float | None = None) -> Agreement:
    return Agreement(what=what, verdict="wrong", digest=digest, largest=largest, cosine=cosine, detail=detail)


def _difference_of_paths(stored: list[str], expected: list[str]) -> str:
    if stored == expected:
        return ""
    missing, unexpected = set(expected) - set(stored), set(stored) - set(expected)
    first = f", such as {min(missing or unexpected)}" if missing or unexpected else ""
    return f"{len(stored):,} images, {len(missing):,} missing and {len(unexpected):,} unexpected{first}"


def _digest(names: bytes, *arrays: Float32) -> str:
    digest = hashlib.sha256(names)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _largest(one: Vectors, other: Vectors) -> float:
    return _over_blocks(lambda a, b: np.abs(a - b).max(), max, one, other)


def _cosine(one: Vectors, other: Vectors) -> float:
    def least(a: Vectors, b: Vectors) -> float:
        a, b = a.astype(np.float64), b.astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float((np.einsum("ij,ij->i", a, b) / np.where(lengths > 0, lengths, 1)).min())

    return min(1.0, _over_blocks(least, min, one, other))


def _over_blocks(
    figure: Callable[[Vectors, Vectors], float], choose: Callable[..., float], one: Vectors, other: Vectors
) -> float:
    """Apply a function to blocks of 4,096 rows, so that temporaries stay small."""
    return float(choose(float(figure(one[i : i + 4096], other[i : i + 4096])) for i in range(0, len(one), 4096)))
