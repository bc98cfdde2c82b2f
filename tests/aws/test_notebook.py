"""docs/feature_extraction.ipynb runs in its own kernel: on Dask, and in a Spark session against S3, as on EMR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.aws.emr.request import configurations
from backends.local import LocalExecutor
from fruits.clusters.clouds import EmrCluster
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from tests.notebooks import execute
from tests.s3.server import served

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "feature_extraction.ipynb"
SESSION = "from backends.spark.session import start_session, stop_session\nspark = start_session(2, None, {})"


def notebook() -> Any:
    import nbformat  # takes 2 s, of every process of the tests if at the top

    return nbformat.read(NOTEBOOK, as_version=4)


def run(book: Any, folder: Path, **environ: str) -> dict[str, str]:
    """Run all cells, and return what each has printed, by its first line."""
    assert book.metadata.kernelspec.name == "python3"
    execute(book, folder, **environ)
    return {cell.source.splitlines()[0]: _printed(cell) for cell in book.cells if cell.cell_type == "code"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter_client and ipykernel
def test_every_cell_runs_and_prints_its_result(tmp_path: Path) -> None:
    printed = run(notebook(), tmp_path, FRUITS_BACKEND="dask")
    texts = "".join(printed.values())
    assert "backend: dask\n" in texts
    assert "48 images of 4 labels" in texts
    assert "fitted here" in texts
    assert "48 images, 48 rows, 0 rejects\n" in texts
    assert "a recogniser of 4 classes\n" in texts
    one = printed["from fruits.images.decode import decode"].splitlines()
    assert one[0].endswith(f"has the label {one[0].partition('/')[0]}")
    assert one[1].startswith("pixels: (224, 224, 3) of uint8 from ")
    assert one[2].startswith("features: (1280,) of float32 starting with [")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_model_images_and_rows_are_in_a_bucket(tmp_path: Path) -> None:
    """In a session of the kernel, on a real S3 server, with the variables that the cluster sets, and a fitted model."""
    bucket = tmp_path / "s3" / "my-fruits"
    bucket.mkdir(parents=True)
    generate(bucket / "images", images=40, labels=4)
    with LocalExecutor() as executor:
        pipeline.fit(Job(images=str(bucket / "images"), out=str(bucket / "model"), components=6), executor)
    settings = EmrCluster(backend="spark", cloud="emr", notebook=True)
    found = {each["Classification"]: each["Properties"] for each in configurations(settings, "my-fruits")}
    lead = "spark.yarn.appMasterEnv."
    places = {
        name.removeprefix(lead): value
        for name, value in found["spark-defaults"].items()
        if name.startswith(f"{lead}FRUITS_") and value.startswith("s3://")
    }
    assert set(places) == {"FRUITS_IMAGES", "FRUITS_MODEL", "FRUITS_OUT"}
    from nbformat.v4 import new_code_cell

    book = notebook()
    book.cells.insert(0, new_code_cell(SESSION))
    book.cells.append(new_code_cell("stop_session(spark)"))
    with served(tmp_path / "s3") as server:
        printed = run(book, tmp_path, FRUITS_BACKEND="session", **places, **server.environ())
    texts = "".join(printed.values())
    assert "backend: spark\n" in texts
    assert "loaded (6, 1280)\n" in texts
    assert "40 images, 40 rows, 0 rejects\n" in texts
    assert "pca_features: 6 values, starting with [" in texts
    assert "scaled_features: 1280 values, starting with [" in texts
    assert "40 rows in s3://my-fruits/notebook\npath,label," in texts
    assert "a recogniser of 4 classes\n" in texts
    csv_files = list((bucket / "notebook" / "csv" / "rows").glob("*.csv"))
    assert sum(len(path.read_text().splitlines()) - 1 for path in csv_files) == 40


def _printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def test_packaged_notebook_is_the_one_in_docs() -> None:
    assert (ROOT / "backends" / "aws" / "emr" / NOTEBOOK.name).resolve() == NOTEBOOK


def test_notebook_is_valid_and_has_no_stored_output() -> None:
    from nbformat import validate

    book = notebook()
    validate(book)
    assert all(not cell.get("outputs") for cell in book.cells)
