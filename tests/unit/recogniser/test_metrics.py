"""Numbers of an evaluation, against values computed by hand and by scikit-learn."""

from __future__ import annotations

import random

import pytest

from fruits.recogniser.evaluation.metrics import Outcome, measure, wilson


def outcome(label: str, *top: str, confidence: float = 0.9, reason: str | None = None, path: str = "") -> Outcome:
    return Outcome(path or f"{label}/{top[0]}.jpg", label, top, confidence, reason)


def test_accuracies_count_rejected_images_too() -> None:
    metrics = measure(
        [
            outcome("a", "a", "b"),
            outcome("a", "b", "a"),
            outcome("b", "c", "a", reason="uncertain", confidence=0.3),
            outcome("b", "b", reason="unlike-anything"),
        ]
    )
    assert (metrics.images, metrics.top1, metrics.top5) == (4, 0.5, 0.75)
    assert (metrics.kept, metrics.kept_accuracy) == (0.5, 0.5)
    assert metrics.rejected == {"uncertain": 1, "unlike-anything": 1}


def test_no_accuracy_of_kept_images_if_all_are_rejected() -> None:
    metrics = measure([outcome("a", "a", reason="uncertain")])
    assert (metrics.kept, metrics.kept_accuracy) == (0.0, None)


def test_the_interval_is_that_of_wilson() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, 1998, table I
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_calibration_error_is_the_mean_distance_of_bins() -> None:
    outcomes = [outcome("a", "a", confidence=0.95)] * 3 + [outcome("a", "b", confidence=0.95)]
    outcomes += [outcome("a", "a", confidence=0.55)] * 4 + [outcome("a", "a", confidence=1.0)] * 2
    metrics = measure(outcomes)
    assert [(each.low, each.images) for each in metrics.reliability] == [(0.5, 4), (0.9, 6)]
    assert metrics.ece == pytest.approx(0.4 * 0.45 + 0.6 * abs((4 * 0.95 + 2) / 6 - 5 / 6))


def test_coverage_takes_the_surest_images_first() -> None:
    outcomes = [outcome("a", "a" if number < 15 else "b", confidence=1 - number / 100) for number in range(20)]
    points = {round(each.coverage, 2): each for each in measure(outcomes).coverage}
    assert points[1.0].accuracy == 0.75
    assert points[0.75].accuracy == 1.0
    assert points[0.75].confidence == pytest.approx(0.86)


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_score, recall_score

    draw = random.Random(0)
    outcomes = [outcome(draw.choice("abcd"), draw.choice("abcd"), path=str(number)) for number in range(200)]
    true, predicted = [each.label for each in outcomes], [each.top[0] for each in outcomes]
    results = {each.label: each for each in measure(outcomes).classes}
    for label, precision, recall in zip(
        "abcd",
        precision_score(true, predicted, average=None),
        recall_score(true, predicted, average=None),
        strict=True,
    ):
        assert results[label].precision == pytest.approx(precision)
        assert results[label].recall == pytest.approx(recall)


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    results = {each.label: each for each in measure([outcome("a", "b")]).classes}
    assert (results["a"].precision, results["a"].recall, results["b"].recall) == (None, 0.0, None)


def test_confusions_and_mistakes_are_sorted_and_rejections_are_no_mistakes() -> None:
    metrics = measure(
        [
            outcome("a", "b", confidence=0.5, path="1"),
            outcome("a", "b", confidence=0.8, path="2"),
            outcome("b", "a", confidence=0.9, path="3", reason="uncertain"),
            outcome("c", "c", path="4"),
        ]
    )
    assert [(each.label, each.prediction, each.images, each.example) for each in metrics.confusions] == [
        ("a", "b", 2, "2"),
        ("b", "a", 1, "3"),
    ]
    assert [each.path for each in metrics.mistakes] == ["2", "1"]


def test_the_order_of_outcomes_does_not_matter() -> None:
    outcomes = [outcome("ab"[n % 2], "abc"[n % 3], confidence=(n % 7) / 7, path=str(n)) for n in range(50)]
    assert measure(outcomes) == measure(outcomes[::-1])
