"""What lower precision would bring and cost: features' error, nearest neighbours, and pictures a second, by form.

A *form* is one way to run the network on OpenVINO. Every form sees the same pixels, in blocks, in turn with float32 and
on one thread; its speed is by that thread's CPU time, so that another process on the machine moves it little. A form is
worth an option of the product if it keeps the two bounds below; what is found stands in docs/precision.md.

``python -m benchmarks.precision IMAGES TEST [--forms NAMES] [--out FOLDER]``
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import orjson

from benchmarks.precision_forms import FORMS, alone, convolutions, plain
from benchmarks.reference import model_of
from fruits.images.decode import decode
from fruits.images.listing import Listing
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork, compile_network

__all__ = ["Result", "errors", "measure", "nearest_labels", "sensitivities"]

Float32 = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.floating]

LARGEST_ERROR = 0.01  # of the features of any picture
LARGEST_LOSS = 0.2  # points of accuracy
PARTITION = 1024  # the product's default, by which moments are merged
BLOCK = 32  # pictures that one form is given before the next has its turn
CALIBRATION = 300  # pictures that int8 is calibrated on, evenly chosen from those that it is fitted on
PROBES = 24  # pictures that a layer's sensitivity is measured on


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one form.

    Attributes
    ----------
    mean_error, max_error : float
        Of ``|features - float32's| / |float32's|``, in the Euclidean norm, over all pictures.
    accuracy : dict of str to float
        Percent of the test pictures whose nearest neighbour has their label, by kind of features.
    per_second : float
        Pictures a second and core: the network with its preprocessing, without decoding.
    speed : float
        Float32's CPU time over this form's, block by block: the median of these ratios.
    """

    form: str
    what: str
    mean_error: float
    max_error: float
    accuracy: dict[str, float]
    per_second: float
    speed: float

    def loss(self, reference: Result) -> float:
        """Return the largest loss of accuracy against the reference, in points."""
        return max(reference.accuracy[kind] - found for kind, found in self.accuracy.items())


class _Runner:
    """A model compiled as the product compiles its own, but for the precision; and what it took."""

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

    def __call__(self, pictures: Sequence[Pixels]) -> tuple[Float32, float]:
        """Return the features of pictures, shape (n, features), and the seconds of CPU time."""
        features = np.empty((len(pictures), self._output.shape[1]), np.float32)
        start = time.thread_time()
        for picture, row in zip(pictures, features, strict=True):
            self._input[0] = _prepared(picture)
            self._request.infer()
            row[:] = self._output[0]
        return features, time.thread_time() - start


def _prepared(picture: Pixels) -> Float32:
    return np.asarray(picture / np.float32(127.5) - np.float32(1), np.float32)


def errors(features: Float32, reference: Float32) -> Float32:
    """Return each picture's relative error, shape (n,), in the Euclidean norm."""
    moved = np.linalg.norm(features - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return np.asarray(moved, np.float32)


def sensitivities(network: NeuralNetwork, pictures: Sequence[Pixels]) -> list[tuple[str, float]]:
    """Return kind and mean error of the features for each convolution that alone is in bfloat16, in their order."""
    reference = _Runner(plain(network), "f32")(pictures)[0]
    found = []
    for place, node in enumerate(convolutions(plain(network))):
        moved = _Runner(alone(place)(network, ()), "bf16")(pictures)[0]
        found.append((node.get_type_name(), float(errors(moved, reference).mean())))
    return found


def nearest_labels(gallery: Vectors, labels: npt.NDArray[Any], queries: Vectors) -> npt.NDArray[Any]:
    """Return the label of each query's nearest neighbour: exact, Euclidean, in float64; of equals the first."""
    known, asked = gallery.astype(np.float64), queries.astype(np.float64)
    squares = (known**2).sum(axis=1)
    found = [labels[np.argmin(squares - 2 * (block @ known.T), axis=1)] for block in np.array_split(asked, 8)]
    return np.concatenate(found)


def _accuracies(
    gallery: Float32, labels: npt.NDArray[Any], queries: Float32, right: npt.NDArray[Any], components: int
) -> dict[str, float]:
    """Return the percentages of right neighbours on features, scaled and PCA features, fitted on the gallery."""
    model = model_of([gallery[start : start + PARTITION] for start in range(0, len(gallery), PARTITION)], components)
    spaces: list[tuple[Vectors, Vectors]] = [(gallery, queries)]
    spaces += zip(model.transform(gallery), model.transform(queries), strict=True)
    found = [100 * (nearest_labels(known, labels, asked) == right).mean() for known, asked in spaces]
    return dict(zip(("features", "scaled", "pca"), map(float, found), strict=True))


def measure(
    names: Sequence[str], network: NeuralNetwork, images: str, test: str, components: int
) -> tuple[list[Result], list[tuple[str, float]]]:
    """Return what was measured of each form, the first of which is float32; and the layers' sensitivities."""
    folders = [(images, list(Listing(images))), (test, list(Listing(test)))]
    files = [(Path(folder, entry.path), entry.label) for folder, entries in folders for entry in entries]
    labels = np.array([label for _, label in files])
    fitted = len(folders[0][1])
    size = backbone(network.backbone).size

    def pixels(index: int) -> Pixels:
        return decode(files[index][0].read_bytes(), size)

    chosen = [pixels(index * fitted // CALIBRATION) for index in range(CALIBRATION)]
    samples = [_prepared(picture)[np.newaxis] for picture in chosen]
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
        moved = errors(features[name], features["f32"])
        accuracy = _accuracies(
            features[name][:fitted], labels[:fitted], features[name][fitted:], labels[fitted:], components
        )
        ratios = [reference / own for reference, own in zip(seconds["f32"], seconds[name], strict=True)]
        results.append(
            Result(
                form=name,
                what=FORMS[name].what,
                mean_error=float(moved.mean()),
                max_error=float(moved.max()),
                accuracy=accuracy,
                per_second=1 / statistics.median(seconds[name]),
                speed=statistics.median(ratios),
            )
        )
    low = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return results, sensitivities(network, chosen[:: CALIBRATION // PROBES]) if low else []


def table(results: Sequence[Result]) -> str:
    """Return the results as a table in Markdown."""
    head = "| form | error, mean | error, max | 1-NN features | scaled | PCA | images/s/core | speed | both bounds |"
    lines = [head, "|" + " --- |" + " ---: |" * 7 + " --- |"]
    for result in results:
        kept = result.max_error <= LARGEST_ERROR and result.loss(results[0]) <= LARGEST_LOSS
        accuracy = " | ".join(f"{value:.2f} %" for value in result.accuracy.values())
        lines.append(
            f"| {result.form} | {result.mean_error:.3%} | {result.max_error:.3%} | {accuracy} | "
            f"{result.per_second:.0f} | {result.speed:.2f} | {'yes' if kept else 'no'} |"
        )
    return "\n".join(lines) + "\n\n" + "\n".join(f"- `{result.form}`: {result.what}" for result in results) + "\n"


def main() -> None:
    """Measure, print the table, and write it with the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", metavar="IMAGES", help="a folder <label>/<file>.jpg: what is fitted on")
    parser.add_argument("test", metavar="TEST", help="another: whose nearest neighbours are sought in IMAGES")
    parser.add_argument("--forms", metavar="NAMES", default=",".join(FORMS), help=f"of: {', '.join(FORMS)}")
    parser.add_argument("--components", type=int, default=200, help="of the PCA; default 200")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="where precision.md and .json go")
    given = parser.parse_args()
    asked = [name.strip() for name in given.forms.split(",")]
    unknown = [name for name in asked if name not in FORMS]
    if unknown:
        parser.error(f"--forms {','.join(unknown)}: not known. Allowed: {', '.join(FORMS)}.")
    absent = [name for name in asked if not all(importlib.util.find_spec(need) for need in FORMS[name].needs)]
    names = ["f32", *(name for name in asked if name != "f32" and name not in absent)]
    network = compile_network("MobileNetV2", "openvino")
    results, ranks = measure(names, network, given.images, given.test, given.components)
    text = table(results)
    if absent:
        text += f"\nNot run, because nncf is not installed: {', '.join(absent)}.\n"
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    raw = {
        "machine": openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": list(capabilities),
        "openvino": version("openvino"),
        "images": given.images,
        "test": given.test,
        "components": given.components,
        "results": [asdict(result) for result in results],
        "not_run": absent,
        "error_with_one_layer_in_bf16": [{"kind": kind, "mean": error} for kind, error in ranks],
    }
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "precision.md").write_text(text)
    (out / "precision.json").write_bytes(orjson.dumps(raw, option=orjson.OPT_INDENT_2))
    print(text)


if __name__ == "__main__":
    main()
