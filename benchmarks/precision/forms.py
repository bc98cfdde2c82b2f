"""Forms of the network to compare: how to build each one, and OpenVINO's inference precision.

MobileNetV2 has 52 convolutions, numbered here from 0 in execution order: the first one, 2 in the first block, 3 in each
of the 16 other blocks (expanding, depthwise, projecting), and the last one.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino._offline_transformations import apply_moc_transformations

from fruits.network.featurizer import NeuralNetwork

Float32 = npt.NDArray[np.float32]
Layers = Callable[[list[openvino.Node]], Sequence[openvino.Node]]  # a choice of convolutions
Build = Callable[[NeuralNetwork, Sequence[Float32]], openvino.Model]

EXPANDING = range(3, 51, 3)
MOST_SENSITIVE = {9, 39, 48}  # of the expanding convolutions, as measured by `sensitivities`


@dataclass(frozen=True, slots=True)
class Form:
    """One way to run the network.

    Attributes
    ----------
    description : str
        Line of the report.
    build : callable
        Build the model to compile from the float32 network and images for calibration.
    hint : {"f32", "bf16"}
        OpenVINO's inference precision.
    needs : tuple of str
        Packages that must be installed; otherwise the form is reported as not run.
    """

    description: str
    build: Build
    hint: str = "f32"
    needs: tuple[str, ...] = ()


def plain(network: NeuralNetwork, _: Sequence[Float32] = ()) -> openvino.Model:
    """Return the network as the product compiles it."""
    return openvino.Core().read_model(network.graph, network.constants[:])


def _folded(network: NeuralNetwork) -> openvino.Model:
    """Return the network with its batch normalisation folded into the convolutions, as in compilation."""
    model = plain(network)
    apply_moc_transformations(model, cf=True)
    return model


def convolutions(model: openvino.Model) -> list[openvino.Node]:
    """Return the convolutions in execution order; the names of folded ones differ from run to run."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]


def _serialised(model: openvino.Model) -> tuple[ElementTree.Element, bytes]:
    """Return the graph and the constants of a model as OpenVINO serialises them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        openvino.serialize(model, path)
        graph = ElementTree.parse(path).getroot()  # nosec B314  # just written by OpenVINO
        return graph, path.with_suffix(".bin").read_bytes()


def _mixed(network: NeuralNetwork, low: Layers) -> openvino.Model:
    """Return the network with all but the chosen convolutions pinned to float32.

    OpenVINO reads the `precise` attribute from a serialised model and loses it on operations folded later, so the
    network is folded first.
    """
    model = _folded(network)
    chosen = {node.get_friendly_name() for node in low(convolutions(model))}
    graph, constants = _serialised(model)
    for layer in graph.iterfind("layers/layer"):
        if layer.get("type") not in ("Const", "Result", "Parameter") and layer.get("name") not in chosen:
            marks = layer.find("rt_info")
            marks = ElementTree.SubElement(layer, "rt_info") if marks is None else marks
            ElementTree.SubElement(marks, "attribute", name="precise", version="0")
    return openvino.Core().read_model(ElementTree.tostring(graph), constants)


def _some(low: Layers) -> Build:
    """Build the network with the chosen convolutions left to bfloat16."""
    return lambda network, _: _mixed(network, low)


def _rounded_weights(rounded: Callable[[Float32], Float32]) -> Build:
    """Build the network with the weights of its convolutions rounded and its arithmetic unchanged."""

    def build(network: NeuralNetwork, _: Sequence[Float32]) -> openvino.Model:
        graph, constants_bytes = _serialised(_folded(network))
        constants = np.frombuffer(constants_bytes, np.uint8).copy()
        for data in graph.iterfind("layers/layer[@type='Const']/data"):
            if data.get("element_type") == "f32" and data.get("shape", "").count(",") >= 3:
                start, size = int(data.get("offset", 0)), int(data.get("size", 0))
                values = constants[start : start + size].view(np.float32)
                values[:] = rounded(values)
        return openvino.Core().read_model(ElementTree.tostring(graph), constants.tobytes())

    return build


def _to_float16(values: Float32) -> Float32:
    return values.astype(np.float16).astype(np.float32)


def to_bfloat16(values: Float32) -> Float32:
    """Round to the nearest values with 8 significant bits, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _int8(*, preset: str = "MIXED", keep: Layers | None = None) -> Build:
    """Build the network quantised after training by NNCF, with the `keep` convolutions in float32."""

    def build(network: NeuralNetwork, images: Sequence[Float32]) -> openvino.Model:
        nncf: Any = import_module("nncf")
        model = _folded(network)
        kept = [node.get_friendly_name() for node in keep(convolutions(model))] if keep else []
        quantised: openvino.Model = nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            preset=nncf.QuantizationPreset[preset],
            subset_size=len(images),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )
        return quantised

    return build


def _of_kind(kind: str) -> Layers:
    return lambda nodes: [node for node in nodes if node.get_type_name() == kind]


def _at(*places: int) -> Layers:
    return lambda nodes: [nodes[place] for place in places]


def alone(place: int) -> Build:
    """Build the network with one convolution left to bfloat16."""
    return _some(_at(place))


FORMS: dict[str, Form] = {
    "f32": Form("float32, as in the product", plain),
    "weights-f16": Form("weights rounded to float16, arithmetic float32", _rounded_weights(_to_float16)),
    "weights-bf16": Form("weights rounded to bfloat16, arithmetic float32", _rounded_weights(to_bfloat16)),
    "bf16": Form("bfloat16 throughout: OpenVINO's default on CPUs with bfloat16", plain, "bf16"),
    "bf16-pointwise": Form("bfloat16, depthwise convolutions in float32", _some(_of_kind("Convolution")), "bf16"),
    "bf16-second-half": Form("bfloat16 from the 27th of 52 convolutions on", _some(itemgetter(slice(26, 52))), "bf16"),
    "bf16-expand-last": Form(
        "bfloat16 in the 16 expanding convolutions and the last", _some(_at(*EXPANDING, 51)), "bf16"
    ),
    "bf16-mixed": Form(
        "bfloat16 in the 13 least sensitive expanding convolutions and the last",
        _some(_at(*(place for place in EXPANDING if place not in MOST_SENSITIVE), 51)),
        "bf16",
    ),
    "int8": Form("int8, NNCF, symmetric", _int8(preset="PERFORMANCE"), needs=("nncf",)),
    "int8-mixed": Form("int8, NNCF, activations asymmetric", _int8(), needs=("nncf",)),
    "int8-expand-last": Form(
        "int8 in the 16 expanding convolutions and the last",
        _int8(keep=lambda nodes: [node for place, node in enumerate(nodes) if place not in (*EXPANDING, 51)]),
        needs=("nncf",),
    ),
    "int8-last": Form("int8 in the last convolution", _int8(keep=itemgetter(slice(0, 51))), needs=("nncf",)),
}
