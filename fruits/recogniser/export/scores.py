"""The scores of a recogniser as ONNX nodes: the formulas of `fruits.recogniser.scoring` and `decision`, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fruits.recogniser.decision import REASONS
from fruits.recogniser.export.graph import Graph
from fruits.recogniser.recogniser import Recogniser
from fruits.recogniser.scoring import UNKNOWN

SMALLEST = 1e-30  # length of a point, or mean squared distance, in float32
EQUAL = 2.0**-16  # relative difference of a value from an equal quantile: float32 has logits up to 100 within 2^-17


def add_scores(graph: Graph, features: str, recogniser: Recogniser) -> None:
    """Add the outputs `scores`, `distance` and `reason`; `features` has shape (n * crops, d)."""
    scorer = recogniser.scorer
    centred = graph.node("Sub", features, graph.constant("mean", scorer.mean))
    points = graph.node("MatMul", centred, graph.constant("projection", scorer.projection))
    length = graph.node("ReduceL2", points, axes=[1], keepdims=1)
    unit = graph.node("Div", points, graph.node("Max", length, graph.constant("smallest", SMALLEST)))
    cosines = graph.node("MatMul", unit, graph.constant("prototypes", scorer.prototypes.T))
    similarity = _similarity(graph, cosines, recogniser)
    logits = graph.node("Div", similarity, graph.constant("temperature", recogniser.decision.temperature))
    probabilities = graph.node("Softmax", logits, axis=1)
    _known(graph, probabilities, name="scores")
    _add_distance(graph, cosines, length, recogniser)
    _add_reason(graph, similarity, probabilities, recogniser)


def _add_distance(graph: Graph, cosines: str, length: str, recogniser: Recogniser) -> None:
    """Add the output `distance`: the smallest squared distance of a class divided by the mean, averaged over crops."""
    twice = graph.node("Mul", graph.node("Mul", cosines, length), graph.constant("two", 2.0))
    lengths = graph.constant("lengths", recogniser.scorer.lengths)
    offsets = graph.node("Mul", graph.node("Sub", lengths, twice), lengths)
    squares = graph.node("Add", offsets, graph.node("Mul", length, length))
    squares = graph.node("Div", squares, graph.constant("spreads", recogniser.scorer.spreads))
    classes = _prototypes(recogniser)[: len(recogniser.labels)]
    squares = graph.node("Gather", squares, graph.constant("of_known_class", classes, np.int64), axis=1)
    squares = graph.node("ReduceMin", squares, axes=[2], keepdims=0)
    squares = graph.node("Max", squares, graph.constant("nothing", 0.0))
    smallest = graph.node("ReduceMin", squares, axes=[1], keepdims=0)
    means = graph.node("Max", graph.node("ReduceMean", squares, axes=[1], keepdims=0), "smallest")
    by_crop = graph.constant("by_crop", [-1, recogniser.crops], np.int64)
    distances = graph.node("Reshape", graph.node("Div", smallest, means), by_crop)
    graph.node("ReduceMean", distances, axes=[1], keepdims=0, name="distance")


def _similarity(graph: Graph, cosines: str, recogniser: Recogniser) -> str:
    """Add the largest cosine of each class, the mean over the crops: shape (n, classes + 1)."""
    columns, prototypes = len(recogniser.labels) + 1, _prototypes(recogniser)
    values = graph.node("Gather", cosines, graph.constant("of_class", prototypes, np.int64), axis=1)
    values = graph.node("ReduceMax", values, axes=[2], keepdims=0)
    if len(prototypes) < columns:  # no prototype is unknown
        one_column = graph.constant("one_column", [0, 0, 0, 1], np.int64)
        values = graph.node("Pad", values, one_column, graph.constant("absent", -1.0))
    shape = graph.constant("by_image", [-1, recogniser.crops, columns], np.int64)
    return graph.node("ReduceMean", graph.node("Reshape", values, shape), axes=[1], keepdims=0)


def _prototypes(recogniser: Recogniser) -> npt.NDArray[np.int64]:
    """Return the prototypes of each class, the unknown ones last: (classes, largest number), the last one repeated."""
    classes = recogniser.scorer.classes
    rows = [np.flatnonzero(classes == number) for number in (*range(len(recogniser.labels)), UNKNOWN)]
    rows = [row for row in rows if len(row)]
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows])


def _sum(graph: Graph, values: str) -> str:
    return graph.node("ReduceSum", values, graph.constant("columns", [1], np.int64), keepdims=1)


def _known(graph: Graph, values: str, *, name: str | None = None) -> str:
    """Add all columns but the last, which is that of the unknown prototypes."""
    start, end, axis = (
        graph.constant(f"known/{key}", [value], np.int64) for key, value in (("start", 0), ("end", -1), ("axis", 1))
    )
    return graph.node("Slice", values, start, end, axis, name=name)


def _add_reason(graph: Graph, similarity: str, probabilities: str, recogniser: Recogniser) -> None:
    """Add the reason of a rejection, an index into :data:`fruits.recogniser.decision.REASONS`."""
    thresholds, classes = recogniser.decision.thresholds, len(recogniser.labels)
    best = graph.node("ArgMax", "scores", axis=1, keepdims=1)
    is_best = graph.node("Equal", graph.constant("class_numbers", np.arange(classes + 1)[None], np.int64), best)
    doubt = _sum(graph, graph.node("Where", is_best, "nothing", probabilities))
    last_axis = graph.constant("last_axis", [1], np.int64)
    distance = graph.node("Unsqueeze", "distance", last_axis)
    # Values that are exactly a quantile are common: with two labels, all images have one of two doubts.
    known_doubts, known_distances = (np.array([each]) * (1 - EQUAL) for each in thresholds[:2])
    by_doubt = _rank(graph, doubt, graph.constant("known_doubts", known_doubts))
    by_distance = _rank(graph, distance, graph.constant("known_distances", known_distances))
    product = graph.node("Mul", by_doubt, by_distance)
    rejected = graph.node("Less", product, graph.constant("least_product", thresholds.product))
    far = graph.node("And", rejected, graph.node("LessOrEqual", by_distance, by_doubt))
    largest = graph.node("ReduceMax", _known(graph, similarity), axes=[1], keepdims=1)
    unknown = graph.node("Gather", similarity, graph.constant("unknown", [classes], np.int64), axis=1)
    unlike = graph.node("Or", graph.node("Greater", unknown, largest), far)
    values = [graph.constant(f"reason/{value}", value, np.int64) for value in range(len(REASONS))]
    reason = graph.node("Where", unlike, values[2], graph.node("Where", rejected, values[1], values[0]))
    graph.node("Squeeze", reason, last_axis, name="reason")


def _rank(graph: Graph, values: str, quantiles: str) -> str:
    """Add 1 plus the number of the quantiles, (1, q), that are larger than each value, (n, 1), in float32."""
    above = graph.node("Cast", graph.node("Greater", quantiles, values), to=1)
    return graph.node("Add", _sum(graph, above), graph.constant("first", 1.0))
