"""The ONNX file of a recogniser, with everything that a program without Fruits needs."""

from __future__ import annotations

import json
import os

import numpy as np

from fruits.errors import ModelError, OutputError
from fruits.network.backbones import backbone
from fruits.network.packaged import PACKAGED
from fruits.parameters import address
from fruits.recogniser.decision import REASONS
from fruits.recogniser.export.graph import Graph
from fruits.recogniser.export.network import add_network
from fruits.recogniser.export.scores import add_scores
from fruits.recogniser.recogniser import Recogniser
from fruits.storage.addresses import absolute, open_store

PIXELS = (
    "uint8, RGB, [images, crops, 224, 224, 3]. The first crop is the whole image, resized to a square with "
    "Image.resize((224, 224), Image.Resampling.BICUBIC) of Pillow; the second one is the centre, 70 % of the width "
    "and of the height, resized in the same way."
)


def export_onnx(recogniser: Recogniser, out: str | os.PathLike[str]) -> int:
    """Write a recogniser as one ONNX file, and return its size in bytes. A file that exists is replaced.

    Raises
    ------
    ModelError
        The recogniser belongs to another network than the packaged one.
    OutputError
        The file cannot be written.
    """
    target = address("out", out)
    data = encode_onnx(recogniser)
    store, path = open_store(absolute(target))
    try:
        store.write(path, data)
    except OSError as error:
        raise OutputError(f"`out` = {target}: cannot be written: {error.strerror or error}. Give a file.") from error
    return len(data)


def encode_onnx(recogniser: Recogniser) -> bytes:
    """Return a recogniser as an ONNX file.

    The input is ``image``: uint8 of shape (n, crops, 224, 224, 3). The outputs are ``scores``, float32 of shape
    (n, classes); ``distance``, float32 of shape (n,); and ``reason``, int64 of shape (n,), an index into the metadata's
    ``reasons``.

    Raises
    ------
    ModelError
        The recogniser belongs to another network than the packaged one.
    """
    kind = backbone(PACKAGED)
    if (recogniser.network["backbone"], recogniser.network["weights"]) != (kind.name, kind.weights_digest):
        raise ModelError(
            f"the recogniser belongs to {recogniser.network['backbone']} with the weights "
            f"{recogniser.network['weights'][:12]}. Only {kind.name} with {str(kind.weights_digest)[:12]}, which ships "
            "with Fruits, can be exported. Train a recogniser on it."
        )
    graph, size, crops = Graph(), kind.size, recogniser.crops
    flat = graph.node("Reshape", "image", graph.constant("images", [-1, size, size, 3], np.int64))
    pixels = graph.node("Cast", flat, to=1)  # float32
    pixels = graph.node("Div", pixels, graph.constant("half", 127.5))
    pixels = graph.node("Sub", pixels, graph.constant("one", 1.0))
    features = add_network(graph, graph.node("Transpose", pixels, perm=[0, 3, 1, 2]))
    add_scores(graph, features, recogniser)
    return graph.encode(
        {"image": ("UINT8", ["n", crops, size, size, 3])},
        {
            "scores": ("FLOAT", ["n", len(recogniser.labels)]),
            "distance": ("FLOAT", ["n"]),
            "reason": ("INT64", ["n"]),
        },
        _metadata(recogniser),
    )


def _metadata(recogniser: Recogniser) -> dict[str, str]:
    """Return what describes the file: texts, or JSON."""
    return {
        "classes": json.dumps(recogniser.labels),
        "reasons": json.dumps([reason or "" for reason in REASONS]),
        "temperature": json.dumps(recogniser.decision.temperature),
        "thresholds": json.dumps(recogniser.decision.thresholds._asdict()),
        "network": json.dumps(dict(recogniser.network)),
        "version": recogniser.version,
        "image": PIXELS,
    }
