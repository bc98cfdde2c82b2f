"""Whether a run found the right answer: a fast wrong one is no result.

Ours must be identical to the reference to the last bit. Others may differ by what another engine of inference or of
linear algebra makes of the same pixels and the same contract, and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from threadpoolctl import threadpool_limits

from benchmarks.cases import Case
from benchmarks.record import Agreement
from benchmarks.reference import Reference, model_of, read_features, read_parts
from benchmarks.scenarios.plan import expected_digest
from fruits.model.rows import decode_rows
from fruits.model.scaled_pca import ScaledPCA

__all__ = ["check", "compare_features"]

# All four peers, TensorFlow on the same pixels, differ from OpenVINO by 4e-5 at most, with a cosine of 1 - 3e-11. Other
# pixels show: another JPEG decoder alone brings the cosine to 0.998, TensorFlow's own bicubic resize to 0.967.
LARGEST, COSINE = 1e-3, 0.999999
MODEL_LARGEST = 1e-6  # of means, deviations and loadings in float64; ours and theirs are 1e-12 apart after alignment
LEADING, CORRELATION = 10, 0.99  # components of a peer's whole job whose scores must be those of the reference

Float32 = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.floating]


def check(case: Case, kind: str, data: Path, out: Path, reference: Reference | None, model: Path | None) -> Agreement:
    """Return how the answer in `out` agrees with what it must be; `model` is what a transform was given."""
    ours = not case.scenario.startswith(("peer-", "run-peer-"))
    if kind == "plan":
        return _plan(case, out)
    if kind == "csv":
        return _csv(data, out, ScaledPCA.load(str(model)))
    if kind == "model":
        if case.scenario == "moments":
            expected = model_of(read_parts(data / "features"), case.components)
        else:
            assert reference is not None
            expected = reference.model(data, case.partition_size, case.components)
        return compare_models(ScaledPCA.load(str(out)), expected, exact=case.backend in ("dask", "spark", "local"))
    assert reference is not None
    if kind == "rows":
        fitted = (
            reference.model(data, case.partition_size, case.components) if model is None else ScaledPCA.load(str(model))
        )
        return _rows(out / "rows", reference.features(data)[0], reference.rows(data, case.partition_size, fitted))
    found = compare_features(out / "features", *reference.features(data), exact=ours)
    if case.scenario.startswith("run-") and found.verdict != "wrong":
        return _leading(
            out / "rows",
            found,
            reference.rows(data, case.partition_size, reference.model(data, case.partition_size, case.components)),
        )
    return found


def compare_features(folder: Path, paths: list[str], expected: Float32, *, exact: bool) -> Agreement:
    """Return how stored features agree with those expected."""
    found_paths, found, _ = read_features(folder)
    digest = _digest("\0".join(found_paths).encode(), found)
    if found_paths != paths or found.shape != expected.shape:
        return _wrong("features", digest, _strangers(found_paths, paths))
    largest, cosine = _largest(found, expected), _cosine(found, expected)
    if np.array_equal(found, expected):
        return Agreement(what="features", verdict="identical", digest=digest, cosine=cosine)
    if exact:
        words = f"must be identical to the last bit, and differ by up to {largest:.2g}"
        return _wrong("features", digest, words, largest, cosine)
    if largest <= LARGEST and cosine >= COSINE:
        return Agreement(what="features", verdict="close", digest=digest, largest=largest, cosine=cosine)
    words = f"differ by up to {largest:.2g} ({LARGEST} is allowed), least cosine {cosine:.5f} ({COSINE} is needed)"
    return _wrong("features", digest, words, largest, cosine)


def compare_models(found: ScaledPCA, expected: ScaledPCA, *, exact: bool) -> Agreement:
    """Return how a fitted model agrees with the one expected."""
    digest = found.digest()
    if digest == expected.digest():
        return Agreement(what="model", verdict="identical", digest=digest, cosine=1.0)
    if found.components.shape != expected.components.shape:
        return _wrong("model", digest, f"components of shape {found.components.shape}, not {expected.components.shape}")
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("mean", "scale", "components")]
    largest = max(_largest(one, other) for one, other in pairs)
    cosine = _cosine(found.components, expected.components)
    if exact:
        words = f"must be identical to the last bit, and differs by up to {largest:.2g}"
        return _wrong("model", digest, words, largest, cosine)
    if largest <= MODEL_LARGEST:
        return Agreement(what="model", verdict="close", digest=digest, largest=largest, cosine=cosine)
    words = f"differs by up to {largest:.2g}; {MODEL_LARGEST:g} is allowed"
    return _wrong("model", digest, words, largest, cosine)


def _rows(folder: Path, paths: list[str], expected: dict[str, Float32]) -> Agreement:
    found_paths, features, others = read_features(folder)
    columns = {"features": features, **others}
    digest = _digest("\0".join(found_paths).encode(), *(columns[name] for name in sorted(columns)))
    if found_paths != paths or columns.keys() != expected.keys():
        return _wrong("rows", digest, _strangers(found_paths, paths) or f"columns {', '.join(columns)}")
    for name, values in expected.items():
        if columns[name].shape != values.shape:
            return _wrong("rows", digest, f"{name} of shape {columns[name].shape}, not {values.shape}")
        if not np.array_equal(columns[name], values):
            largest = _largest(columns[name], values)
            words = f"{name} must be identical to the last bit, and differ by up to {largest:.2g}"
            return _wrong("rows", digest, words, largest)
    return Agreement(what="rows", verdict="identical", digest=digest, cosine=1.0)


def _leading(folder: Path, features: Agreement, expected: dict[str, Float32]) -> Agreement:
    """Compare the scores of a peer's leading components, whatever its signs and its centring."""
    _, _, others = read_features(folder)
    scores = others["pca_features"][:, :LEADING]
    pairs = zip(scores.T, expected["pca_features"][:, :LEADING].T, strict=True)
    least = min(abs(float(np.corrcoef(one, other)[0, 1])) for one, other in pairs)
    if least >= CORRELATION:
        detail = f"scores of the {scores.shape[1]} leading components correlate by {least:.4f} or more"
        return Agreement(
            what="rows",
            verdict="close",
            digest=features.digest,
            largest=features.largest,
            cosine=features.cosine,
            detail=detail,
        )
    words = f"scores of a leading component correlate by {least:.3f}; {CORRELATION} is needed"
    return _wrong("rows", features.digest, words, features.largest, features.cosine)


def _plan(case: Case, out: Path) -> Agreement:
    found = orjson.loads((out / "plan.json").read_bytes())
    if found == {"images": case.images, "digest": expected_digest(case.images)}:
        return Agreement(what="plan", verdict="identical", digest=found["digest"])
    return _wrong("plan", found["digest"], f"{found['images']:,} keys, or not those that there are")


def _csv(data: Path, out: Path, model: ScaledPCA) -> Agreement:
    digest = hashlib.sha256()
    stored = sorted((out / "rows").glob("*.csv"))
    for path, features in zip(stored, read_parts(data / "features"), strict=True):
        content = path.read_bytes()
        digest.update(content)
        found = decode_rows(content, path.name)
        with threadpool_limits(1):  # as on a worker
            scaled, scores = model.transform(features)
        expected: dict[str, Vectors] = {"features": features, "scaled_features": scaled, "pca_features": scores}
        for name, values in expected.items():
            if not np.array_equal(np.asarray(found[name]), values.astype(np.float32)):
                return _wrong("csv", digest.hexdigest(), f"{name} of {path.name} are not those of the rows")
    return Agreement(what="csv", verdict="identical", digest=digest.hexdigest())


def _wrong(what: str, digest: str, detail: str, largest: float = -1.0, cosine: float | None = None) -> Agreement:
    return Agreement(what=what, verdict="wrong", digest=digest, largest=largest, cosine=cosine, detail=detail)


def _strangers(found: list[str], expected: list[str]) -> str:
    if found == expected:
        return ""
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    first = f", such as {min(missing or extra)}" if missing or extra else ""
    return f"{len(found):,} images, {len(missing):,} missing and {len(extra):,} that should not be there{first}"


def _digest(names: bytes, *arrays: Float32) -> str:
    digest = hashlib.sha256(names)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _largest(one: Vectors, other: Vectors) -> float:
    return _over_rows(lambda a, b: np.abs(a - b).max(), max, one, other)


def _cosine(one: Vectors, other: Vectors) -> float:
    def least(a: Vectors, b: Vectors) -> float:
        a, b = a.astype(np.float64), b.astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float((np.einsum("ij,ij->i", a, b) / np.where(lengths > 0, lengths, 1)).min())

    return min(1.0, _over_rows(least, min, one, other))


def _over_rows(
    of: Callable[[Vectors, Vectors], float], choose: Callable[..., float], one: Vectors, other: Vectors
) -> float:
    """Apply a function to some thousand rows at a time, so that no copy of all of them is made."""
    return float(choose(float(of(one[i : i + 4096], other[i : i + 4096])) for i in range(0, len(one), 4096)))
