"""Compare precisions of the network: error of the features, accuracy of nearest neighbours and speed.

Every *form* (one way to run the network on OpenVINO) processes the same images on one thread, block by block, in turn
with float32. Speed is measured in CPU time, so that other processes on the machine have little influence. A form
qualifies as an option of the product if it stays within both bounds below. Results: docs/precision.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from benchmarks.answers.reference import fit_parts
from benchmarks.precision.forms import FORMS, alone, convolutions, plain
from fruits.images.decode import decode
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork

Float32 = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.floating]

LARGEST_ERROR = 0.01  # relative error of the features of any image
LARGEST_LOSS = 0.2  # loss of accuracy, in percentage points
PARTITION = 1024  # default partition size of the product
BLOCK = 32  # images per turn of a form
CALIBRATION = 300  # images for calibrating int8, chosen evenly from the fitted ones
PROBES = 24  # images for measuring the sensitivity of a layer


@dataclass(frozen=True, slots=True)
class Result:
    """Measurements of one form.

    Attributes
    ----------
    mean_error, max_error : float
        Of ``|features - float32's| / |float32's|``, in the Euclidean norm, over all images.
    accuracy : dict of str to float
        Percentage of test images whose nearest neighbour has the same label, by kind of features.
    per_second : float
        Images per second and core: preprocessing and network, without decoding.
    speed : float
        CPU time of float32 divided by that of this form: median over the blocks.
    """

    form: str
    what: str
    mean_error: float
    max_error: float
    accuracy: dict[str, float]
    per_second: float
    speed: float

    def loss(self, reference: Result) -> float:
        """Return the largest loss of accuracy against the reference, in percentage points."""
        return max(reference.accuracy[kind] - percent for kind, percent in self.accuracy.items())


class _Runner:
    """A model compiled with the product's options except the precision, timed on each call."""

    def __init__(self, model: openvino.Model, hint: str) -> None:
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": hint,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._input: Float32 = self._request.get_input_tensor().data
        self._output: Float32 = self._request.get_output_tensor().data

    def __call__(self, images: Sequence[Pixels]) -> tuple[Float32, float]:
        """Return the features of images, shape (n, features), and the CPU seconds spent."""
        features = np.empty((len(images), self._output.shape[1]), np.float32)
        start = time.thread_time()
        for image, row in zip(images, features, strict=True):
            self._input[0] = _preprocess(image)
            self._request.infer()
            row[:] = self._output[0]
        return features, time.thread_time() - start


def _preprocess(image: Pixels) -> Float32:
    return np.asarray(image / np.float32(127.5) - np.float32(1), np.float32)


def errors(features: Float32, reference: Float32) -> Float32:
    """Return the relative error of each image's features, shape (n,), in the Euclidean norm."""
    distances = np.linalg.norm(features - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return np.asarray(distances, np.float32)


def sensitivities(network: NeuralNetwork, images: Sequence[Pixels]) -> list[tuple[str, float]]:
    """Return the kind of each convolution and the mean error of the features with only it in bfloat16, in order."""
    reference = _Runner(plain(network), "f32")(images)[0]
    result = []
    for place, node in enumerate(convolutions(plain(network))):
        features = _Runner(alone(place)(network, ()), "bf16")(images)[0]
        result.append((node.get_type_name(), float(errors(features, reference).mean())))
    return result


def nearest_labels(gallery: Vectors, labels: npt.NDArray[Any], queries: Vectors) -> npt.NDArray[Any]:
    """Return the label of each query's nearest neighbour: exact Euclidean search in float64, ties to the first."""
    known, sought = gallery.astype(np.float64), queries.astype(np.float64)
    squares = (known**2).sum(axis=1)
    nearest = [labels[np.argmin(squares - 2 * (block @ known.T), axis=1)] for block in np.array_split(sought, 8)]
    return np.concatenate(nearest)


def _accuracies(
    gallery: Float32, labels: npt.NDArray[Any], queries: Float32, expected: npt.NDArray[Any], components: int
) -> dict[str, float]:
    """Return the percentages of correct neighbours on features, scaled and PCA features, fitted on the gallery."""
    model = fit_parts([gallery[start : start + PARTITION] for start in range(0, len(gallery), PARTITION)], components)
    spaces: list[tuple[Vectors, Vectors]] = [(gallery, queries)]
    spaces += zip(model.transform(gallery), model.transform(queries), strict=True)
    percent = [100 * (nearest_labels(known, labels, sought) == expected).mean() for known, sought in spaces]
    return dict(zip(("features", "scaled", "pca"), map(float, percent), strict=True))


def measure(
    names: Sequence[str], network: NeuralNetwork, images: str, test: str, components: int
) -> tuple[list[Result], list[tuple[str, float]]]:
    """Measure each form, the first of which is float32, and the layers' sensitivities.

    The sensitivities are empty on a CPU without bfloat16.
    """
    folders = [(images, list(Listing(open_source(images)))), (test, list(Listing(open_source(test))))]
    files = [(Path(folder, image.path), image.label) for folder, listed in folders for image in listed]
    labels = np.array([label for _, label in files])
    fitted = len(folders[0][1])
    size = backbone(network.backbone).size

    def pixels(index: int) -> Pixels:
        return decode(files[index][0].read_bytes(), size)

    chosen = [pixels(index * fitted // CALIBRATION) for index in range(CALIBRATION)]
    samples = [_preprocess(image)[np.newaxis] for image in chosen]
    runners = {name: _Runner(FORMS[name].build(network, samples), FORMS[name].hint) for name in names}
    features = {name: np.empty((len(files), network.features), np.float32) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, start in enumerate(range(0, len(files), BLOCK)):
        block = [pixels(index) for index in range(start, min(start + BLOCK, len(files)))]
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            features[name][start : start + BLOCK], spent = runners[name](block)
            seconds[name].append(spent / len(block))
    results = []
    for name in names:
        distances = errors(features[name], features["f32"])
        accuracy = _accuracies(
            features[name][:fitted], labels[:fitted], features[name][fitted:], labels[fitted:], components
        )
        ratios = [reference / own for reference, own in zip(seconds["f32"], seconds[name], strict=True)]
        results.append(
            Result(
                form=name,
                what=FORMS[name].description,
                mean_error=float(distances.mean()),
                max_error=float(distances.max()),
                accuracy=accuracy,
                per_second=1 / statistics.median(seconds[name]),
                speed=statistics.median(ratios),
            )
        )
    has_bfloat16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return results, sensitivities(network, chosen[:: CALIBRATION // PROBES]) if has_bfloat16 else []


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    head = "| form | error, mean | error, max | 1-NN features | scaled | PCA | images/s/core | speed | both bounds |"
    lines = [head, "|" + " --- |" + " ---: |" * 7 + " --- |"]
    for result in results:
        within = result.max_error <= LARGEST_ERROR and result.loss(results[0]) <= LARGEST_LOSS
        accuracy = " | ".join(f"{value:.2f} %" for value in result.accuracy.values())
        lines.append(
            f"| {result.form} | {result.mean_error:.3%} | {result.max_error:.3%} | {accuracy} | "
            f"{result.per_second:.0f} | {result.speed:.2f} | {'yes' if within else 'no'} |"
        )
    return "\n".join(lines) + "\n\n" + "\n".join(f"- `{result.form}`: {result.what}" for result in results) + "\n"
