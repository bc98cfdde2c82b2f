"""Compare precisions of the network: ``python -m benchmarks.precision IMAGES TEST [--forms NAMES] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import importlib.util

import openvino

from benchmarks.measure.results import write_results
from benchmarks.precision.forms import FORMS
from benchmarks.precision.measure import measure, table
from fruits.network.featurizer import compile_network


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description="Compare precisions of the network: error of the features, accuracy and speed of each form.",
    )
    parser.add_argument("images", metavar="IMAGES", help="folder <label>/<file>.jpg to fit on")
    parser.add_argument("test", metavar="TEST", help="another such folder, classified by nearest neighbours in IMAGES")
    parser.add_argument("--forms", metavar="NAMES", default=",".join(FORMS), help=f"of: {', '.join(FORMS)}")
    parser.add_argument("--components", type=int, default=200, help="PCA components; default 200")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="folder of precision.md and precision.json")
    return parser


def main() -> None:
    """Measure, print the table, and write it with the raw figures."""
    parser = _parser()
    arguments = parser.parse_args()
    requested = [name.strip() for name in arguments.forms.split(",")]
    if unknown := [name for name in requested if name not in FORMS]:
        parser.error(f"--forms {','.join(unknown)}: unknown. Allowed: {', '.join(FORMS)}.")
    absent = [name for name in requested if not all(importlib.util.find_spec(need) for need in FORMS[name].needs)]
    names = ["f32", *(name for name in requested if name != "f32" and name not in absent)]
    network = compile_network("MobileNetV2", "openvino")
    results, layers = measure(names, network, arguments.images, arguments.test, arguments.components)
    text = table(results)
    if absent:
        text += f"\nNot run, because nncf is not installed: {', '.join(absent)}.\n"
    figures = {
        "capabilities": list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "images": arguments.images,
        "test": arguments.test,
        "components": arguments.components,
        "results": results,
        "not_run": absent,
        "error_with_one_layer_in_bf16": [{"kind": kind, "mean": error} for kind, error in layers],
    }
    write_results(arguments.out, "precision", text, figures)


if __name__ == "__main__":
    main()
