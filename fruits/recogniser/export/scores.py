"""The scores of a recogniser as ONNX nodes: the formulas of `fruits.recogniser.scoring` and `decision`, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fruits.recogniser.decision import REASONS
from fruits.recogniser.export.graph import Graph
from fruits.recogniser.recogniser import Recogniser
from fruits.recogniser.scoring import FARTHEST, UNKNOWN

SHORTEST = 1e-30  # length of a point, in float32


def add_scores(graph: Graph, features: str, recogniser: Recogniser) -> None:
    """Add the outputs `scores`, `similarity`, `agreement` and `reason`; `features` has shape (n * crops, d)."""
    scorer, decision = recogniser.scorer, recogniser.decision
    centred = graph.node("Sub", features, graph.constant("mean", scorer.mean))
    points = graph.node("MatMul", centred, graph.constant("projection", scorer.projection))
    length = graph.node("ReduceL2", points, axes=[1], keepdims=1)
    length = graph.node("Max", length, graph.constant("shortest", SHORTEST))
    unit = graph.node("Div", points, length)
    cosines = graph.node("MatMul", unit, graph.constant("prototypes", scorer.prototypes.T))
    ratios = graph.node("Div", graph.constant("lengths", scorer.lengths), length)
    twice = graph.node("Mul", cosines, graph.constant("two", 2.0))
    distances = graph.node("Mul", graph.node("Sub", ratios, twice), ratios)
    distances = graph.node("Add", distances, graph.constant("unit_square", 1.0))

    similarity = _by_class(graph, "ReduceMax", cosines, recogniser, absent=-1.0)
    distance = _by_class(graph, "ReduceMin", distances, recogniser, absent=FARTHEST, bounds=(0.0, FARTHEST))
    logits = graph.node("Div", similarity, graph.constant("temperature", decision.temperature))
    _known(graph, graph.node("Softmax", logits, axis=1), name="scores")
    _largest(graph, _known(graph, similarity), name="similarity")
    logits = graph.node("Div", distance, graph.constant("distance_temperature", -decision.distance_temperature))
    _largest(graph, _known(graph, graph.node("Softmax", logits, axis=1)), name="agreement")
    _add_reason(graph, similarity, recogniser)


def _by_class(
    graph: Graph,
    reduction: str,
    values: str,
    recogniser: Recogniser,
    *,
    absent: float,
    bounds: tuple[float, float] | None = None,
) -> str:
    """Add the extreme of each class over its prototypes, then the mean over the crops: shape (n, classes + 1)."""
    columns, prototypes = len(recogniser.labels) + 1, _prototypes(recogniser)
    values = graph.node("Gather", values, graph.constant("of_class", prototypes, np.int64), axis=1)
    values = graph.node(reduction, values, axes=[2], keepdims=0)
    if bounds is not None:
        low, high = (graph.constant(f"{reduction}/{bound}", bound) for bound in bounds)
        values = graph.node("Clip", values, low, high)
    if len(prototypes) < columns:  # no prototype is unknown
        one_column = graph.constant("one_column", [0, 0, 0, 1], np.int64)
        values = graph.node("Pad", values, one_column, graph.constant(f"{reduction}/absent", absent))
    shape = graph.constant("by_image", [-1, recogniser.crops, columns], np.int64)
    return graph.node("ReduceMean", graph.node("Reshape", values, shape), axes=[1], keepdims=0)


def _prototypes(recogniser: Recogniser) -> npt.NDArray[np.int64]:
    """Return the prototypes of each class, the unknown ones last: (classes, largest number), the last one repeated."""
    classes = recogniser.scorer.classes
    rows = [np.flatnonzero(classes == number) for number in (*range(len(recogniser.labels)), UNKNOWN)]
    rows = [row for row in rows if len(row)]
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows])


def _known(graph: Graph, values: str, *, name: str | None = None) -> str:
    """Add all columns but the last, which is that of the unknown prototypes."""
    start, end, axis = (
        graph.constant(f"known/{key}", [value], np.int64) for key, value in (("start", 0), ("end", -1), ("axis", 1))
    )
    return graph.node("Slice", values, start, end, axis, name=name)


def _largest(graph: Graph, values: str, *, name: str | None = None) -> str:
    return graph.node("ReduceMax", values, axes=[1], keepdims=0, name=name)


def _add_reason(graph: Graph, similarity: str, recogniser: Recogniser) -> None:
    """Add the reason of a rejection, an index into :data:`fruits.recogniser.decision.REASONS`."""
    last = graph.constant("last", len(recogniser.labels), np.int64)
    unknown = graph.node("Greater", graph.node("Gather", similarity, last, axis=1), "similarity")
    criteria = {"confidence": _largest(graph, "scores"), "similarity": "similarity", "agreement": "agreement"}
    below = {
        name: graph.node("Less", criteria[name], graph.constant(f"least_{name}", threshold))
        for name, threshold in recogniser.decision.thresholds._asdict().items()
    }
    unlike = graph.node("Or", unknown, below["similarity"])
    uncertain = graph.node("Or", below["confidence"], below["agreement"])
    values = [graph.constant(f"reason/{value}", value, np.int64) for value in range(len(REASONS))]
    graph.node("Where", unlike, values[2], graph.node("Where", uncertain, values[1], values[0]), name="reason")
