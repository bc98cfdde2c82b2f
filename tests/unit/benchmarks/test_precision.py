from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.precision.forms import FORMS, to_bfloat16
from benchmarks.precision.measure import Result, errors, nearest_labels, table

PLAIN = Result("f32", "as in the product", 0.0, 0.0, {"features": 98.0, "scaled": 97.0, "pca": 97.5}, 130.0, 1.0)


def test_an_error_is_relative_to_the_features_of_its_image() -> None:
    reference = np.array([[3, 4], [0, 10]], np.float32)
    assert errors(reference + np.float32([[0, 0.05], [0, 0.05]]), reference) == pytest.approx([0.01, 0.005], rel=1e-4)


def test_the_nearest_neighbour_is_exact_and_ties_go_to_the_first() -> None:
    random = np.random.default_rng(3)
    gallery = random.normal(100, 1, (60, 5)).astype(np.float32)  # far from 0, where float32 would cancel
    gallery[59] = gallery[7]
    queries = np.concatenate([random.normal(100, 1, (30, 5)).astype(np.float32), gallery[59:]])
    distances = np.linalg.norm(queries[:, None].astype(float) - gallery[None].astype(float), axis=2)
    found = nearest_labels(gallery, np.arange(60), queries)
    assert found.tolist() == distances.argmin(axis=1).tolist()
    assert found[-1] == 7


def test_bfloat16_keeps_8_bits_and_rounds_to_even() -> None:
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 1 + 2**-8 + 2**-20, 3e38, 0], np.float32)
    assert to_bfloat16(values).tolist() == [1, 1, 1 + 2**-6, -1 - 2**-7, 1 + 2**-7, to_bfloat16(values)[5], 0]
    assert to_bfloat16(values)[5] == pytest.approx(3e38, rel=2**-8)


@pytest.mark.parametrize(
    ("changed", "within"),
    [
        ({"max_error": 0.0099}, True),
        ({"max_error": 0.0101}, False),
        ({"accuracy": {"features": 97.85, "scaled": 97.0, "pca": 99.0}}, True),
        ({"accuracy": {"features": 99.0, "scaled": 96.7, "pca": 99.0}}, False),
    ],
)
def test_a_form_must_stay_within_both_bounds(changed: dict[str, object], within: bool) -> None:
    form = replace(PLAIN, form="other", **changed)  # type: ignore[arg-type]
    row = next(line for line in table([PLAIN, form]).splitlines() if line.startswith("| other "))
    assert row.endswith(f"| {'yes' if within else 'no'} |")


def test_float32_is_the_first_form_and_needs_no_package() -> None:
    assert next(iter(FORMS)) == "f32"
    assert FORMS["f32"].needs == ()
