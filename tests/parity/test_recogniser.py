"""Training and predictions on every backend, compared bit by bit, with the real network and generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import backends
import fruits
from fruits.executor import Executor
from fruits.images.sample import generate
from fruits.jobs.inspect.compare import compare

SIZES = {"local": 5, "dask": 18, "spark": 10}  # images in a partition
assert set(SIZES) == set(backends.BACKENDS)  # add new backends here


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images of three labels, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("recogniser") / "images"
    generate(folder, images=36, labels=3)
    (next(folder.iterdir()) / "broken.jpg").write_bytes(b"no image")
    return folder


def recognise(images: Path, folder: Path, executor: Executor, size: int, crops: int) -> tuple[dict[str, bytes], Any]:
    """Train, predict and evaluate; return the files of the recogniser and the evaluation."""
    job = fruits.Job(images=str(images), out=str(folder / "features"), components=2, crops=crops, partition_size=size)
    fruits.fit(job, executor)
    rec = str(folder / "rec")
    fruits.train(fruits.Training(sources=(job.out,), out=rec, crops=crops), executor)
    predictions = fruits.Job(images=str(images), out=str(folder / "predictions"), recogniser=rec, partition_size=size)
    fruits.predict(predictions, executor)
    evaluation = fruits.evaluate(job.out, rec, str(folder / "evaluation"), executor)
    files = {path.name: path.read_bytes() for path in Path(rec).iterdir() if path.suffix in (".json", ".safetensors")}
    return files, evaluation


@pytest.fixture(scope="module", params=[1, 2])
def reference(
    solver_in_this_process: None,
    opened: Any,
    images: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: Any,
) -> Any:
    """The crops, the folder and the results of a recogniser."""
    folder = tmp_path_factory.mktemp("reference")
    return request.param, folder, recognise(images, folder, opened("local"), 100, request.param)


@pytest.mark.parametrize("backend", list(SIZES))
def test_every_backend_gives_the_same_recogniser_and_predictions(
    opened: Any, images: Path, reference: Any, tmp_path: Path, backend: str
) -> None:
    crops, expected, (files, evaluation) = reference
    found, other = recognise(images, tmp_path, opened(backend), SIZES[backend], crops)
    assert found == files
    assert (other.metrics, other.left_out) == (evaluation.metrics, evaluation.left_out)
    rows = compare(str(expected / "predictions"), str(tmp_path / "predictions"))
    assert (rows.rows, rows.identical) == (36, True), rows.differences
