"""The exported ONNX file: the same answers on ONNX Runtime and OpenVINO as from Fruits."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from PIL import Image

from fruits.errors import ModelError, OutputError
from fruits.images.decode import decode_crops
from fruits.network.featurizer import compile_network
from fruits.network.packaged import PACKAGED
from fruits.recogniser.decision import REASONS, Decision, Thresholds, doubts
from fruits.recogniser.export.graph import Graph
from fruits.recogniser.export.onnx_file import encode_onnx, export_onnx
from fruits.recogniser.export.scores import add_scores
from fruits.recogniser.files import StoredRecogniser
from fruits.recogniser.products import softmax
from fruits.recogniser.recogniser import Recogniser
from tests.recognisers import FARTHEST, drawn_fruit, small_recogniser
from tests.unit.recogniser.conftest import LABELS, random_recogniser

ROBOT = Path(__file__).parents[3] / "docs" / "serving" / "robot.py"
TOLERANCE = 1e-4

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def with_packaged_network(stored: StoredRecogniser) -> StoredRecogniser:
    network = compile_network(PACKAGED)
    return dataclasses.replace(stored, network={**stored.network, "weights": network.weights_digest})


def on_onnxruntime(data: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {"image": image}), strict=True))


def on_openvino(data: bytes) -> Run:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(data), "CPU", settings)
    return lambda image: {output.get_any_name(): value for output, value in compiled(image).items()}


RUNTIMES = pytest.mark.parametrize("runtime", [on_onnxruntime, on_openvino])


def assert_same(recogniser: Recogniser, run: Run, image: np.ndarray) -> None:
    """Check the outputs for pixels of shape (n, crops, 224, 224, 3)."""
    featurizer = compile_network(PACKAGED).load()
    features = np.stack([featurizer(crops) for crops in image])
    expected = recogniser.scorer.scores(features, len(recogniser.labels))
    scores = softmax(expected.similarity / recogniser.decision.temperature)[:, :-1]
    reasons = [answer.reason for answer in recogniser.recognise_features(features)]
    outputs = run(image)
    np.testing.assert_allclose(outputs["scores"], scores, atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(outputs["scores"].argmax(1), scores.argmax(1))
    np.testing.assert_allclose(outputs["distance"], expected.distance, atol=TOLERANCE, rtol=0)
    assert [REASONS[value] for value in outputs["reason"]] == reasons


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return drawn_fruit(tmp_path_factory.mktemp("drawn") / "fruit")


@pytest.fixture(scope="module")
def trained(drawn: dict[str, list[Path]]) -> Recogniser:
    return Recogniser.from_stored(small_recogniser(drawn))


@RUNTIMES
def test_drawn_fruit(trained: Recogniser, drawn: dict[str, list[Path]], runtime: Callable[[bytes], Run]) -> None:
    image = np.stack([decode_crops(path.read_bytes()) for paths in drawn.values() for path in paths[:2]])
    assert_same(trained, runtime(encode_onnx(trained)), image)


@RUNTIMES
def test_real_images(fruits360: Path, runtime: Callable[[bytes], Run]) -> None:
    labels = sorted((fruits360 / "Training").iterdir())[::10]
    trained = Recogniser.from_stored(small_recogniser({label.name: sorted(label.iterdir())[:5] for label in labels}))
    paths = sorted((fruits360 / "Test").glob("*/*.jpg"))[::40]
    assert len(paths) > 30
    assert_same(trained, runtime(encode_onnx(trained)), np.stack([decode_crops(path.read_bytes()) for path in paths]))


@RUNTIMES
@pytest.mark.parametrize("crops", [1, 2])
@pytest.mark.parametrize("unknown", [True, False], ids=["unknown", "known"])
def test_crops_unknown_prototypes_and_every_reason(runtime: Callable[[bytes], Run], crops: int, unknown: bool) -> None:
    stored = with_packaged_network(random_recogniser(crops=crops))
    chosen = slice(None) if unknown else slice(0, -2)
    of_prototypes = ("prototypes", "lengths", "spreads", "classes")
    arrays = {name: array[chosen] if name in of_prototypes else array for name, array in stored.arrays.items()}
    image = np.random.default_rng(1).integers(0, 256, (6, crops, 224, 224, 3), np.uint8)
    image[3:] //= 8
    featurizer = compile_network(PACKAGED).load()
    features = np.stack([featurizer(each) for each in image])
    recogniser = Recogniser.from_stored(dataclasses.replace(stored, arrays=arrays))
    scores = recogniser.scorer.scores(features, len(recogniser.labels))
    criteria = doubts(recogniser.decision.probabilities(scores)), scores.distance
    quantiles = {name: _between(values) for name, values in zip(("doubt", "distance"), criteria, strict=True)}
    for product in (0, 10, 50):  # of ranks from 1 to 6
        thresholds = {**quantiles, "product": product}
        recogniser = Recogniser.from_stored(dataclasses.replace(stored, arrays=arrays, thresholds=thresholds))
        assert_same(recogniser, runtime(encode_onnx(recogniser)), image)


def test_the_doubts_of_two_labels_which_all_are_quantiles_have_the_same_rank() -> None:
    stored = random_recogniser(features=8, directions=1)
    arrays = {
        name: array[:2] if len(array) == len(stored.arrays["classes"]) else array
        for name, array in stored.arrays.items()
    }
    arrays |= {"prototypes": np.array([[1], [-1]], np.float32), "classes": np.arange(2)}
    features = np.random.default_rng(0).uniform(0, 6, (40, 1, 8)).astype(np.float32)
    for temperature in np.geomspace(0.03, 3, 9):
        changed = dataclasses.replace(stored, labels=LABELS[:2], arrays=arrays, temperature=float(temperature))
        recogniser = Recogniser.from_stored(changed)
        scores = recogniser.scorer.scores(features, 2)
        known = np.sort(doubts(recogniser.decision.probabilities(scores)))
        thresholds = Thresholds(tuple(known.tolist()), _between(scores.distance)[::2], 10)
        decision = Decision(float(temperature), thresholds)
        graph = Graph()
        add_scores(graph, graph.node("Identity", "image"), dataclasses.replace(recogniser, decision=decision))
        outputs = {"scores": ("FLOAT", ["n", 2]), "distance": ("FLOAT", ["n"]), "reason": ("INT64", ["n"])}
        found = on_onnxruntime(graph.encode({"image": ("FLOAT", ["n", 8])}, outputs, {}))(features[:, 0])
        assert 0 < np.count_nonzero(found["reason"]) < 40
        np.testing.assert_array_equal(found["reason"], decision.decide(scores).reasons)


def _between(values: np.ndarray) -> tuple[float, ...]:
    """Return the middles between neighbouring values."""
    ordered = np.sort(values)
    return tuple(((ordered[1:] + ordered[:-1]) / 2).tolist())


def test_everything_that_a_program_needs_is_in_the_file(trained: Recogniser) -> None:
    data = encode_onnx(trained)
    model = onnx.load_from_string(data)
    metadata: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == list(trained.labels)
    assert json.loads(metadata["temperature"]) == trained.decision.temperature
    assert json.loads(metadata["thresholds"]) == {"doubt": [0.5], "distance": [FARTHEST], "product": 4}
    assert json.loads(metadata["network"]) == trained.network
    assert metadata["version"] == trained.version
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim] == ["n", 1, 224, 224, 3]
    assert encode_onnx(trained) == data


def test_a_file_is_replaced_and_nothing_else_is_left(trained: Recogniser, tmp_path: Path) -> None:
    target = tmp_path / "fruit.onnx"
    target.write_text("old")
    assert export_onnx(trained, target) == target.stat().st_size
    onnx.checker.check_model(str(target))
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_is_a_folder_leaves_no_temporary_file(trained: Recogniser, tmp_path: Path) -> None:
    (tmp_path / "fruit.onnx").mkdir()
    with pytest.raises(OutputError, match="cannot be written: Is a directory"):
        export_onnx(trained, tmp_path / "fruit.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["fruit.onnx"]


@pytest.mark.parametrize("change", [{"backbone": "ResNet50"}, {"weights": "ab" * 32}])
def test_another_network_cannot_be_exported(stored: StoredRecogniser, change: dict[str, str]) -> None:
    packaged = with_packaged_network(stored)
    other = Recogniser.from_stored(dataclasses.replace(packaged, network={**packaged.network, **change}))
    with pytest.raises(ModelError, match="Only MobileNetV2 with"):
        encode_onnx(other)


def test_hostile_labels_are_kept(stored: StoredRecogniser) -> None:
    labels = tuple(sorted(["<script>", "x" * 10_000, "\u202e\n\"'", *stored.labels[3:]]))
    recogniser = Recogniser.from_stored(dataclasses.replace(with_packaged_network(stored), labels=labels))
    model = onnx.load_from_string(encode_onnx(recogniser))
    classes = next(entry.value for entry in model.metadata_props if entry.key == "classes")
    assert json.loads(classes) == list(labels)


def test_the_example_without_fruits(trained: Recogniser, drawn: dict[str, list[Path]], tmp_path: Path) -> None:
    source = ROBOT.read_text()
    tree = ast.parse(source)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"json", "sys", "numpy", "onnxruntime"}
    assert len([line for line in source.split('"""')[2].splitlines() if line]) <= 20
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "black.png")
    paths = [paths[0] for paths in drawn.values()] + [tmp_path / "black.png"]
    export_onnx(trained, tmp_path / "fruit.onnx")
    command = [sys.executable, "-P", str(ROBOT), str(tmp_path / "fruit.onnx"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, path, answer in zip(
        done.stdout.splitlines(), paths, trained.recognise(list(map(str, paths))), strict=True
    ):
        label, score = answer.top[0]
        assert line == f"{path} {label} {score:.3f} {answer.reason or 'recognised'}"
