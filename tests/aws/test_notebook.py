"""docs/feature_extraction.ipynb runs in its own kernel, on Dask, on Spark, and in an existing Spark session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "feature_extraction.ipynb"
SESSION = "from backends.spark.session import start_session, stop_session\nspark = start_session(2, None, {})"


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter_client and ipykernel
@pytest.mark.parametrize("place", ["dask", "spark", "session"])
def test_every_cell_runs_and_prints_its_result(tmp_path: Path, place: str) -> None:
    book = notebook()
    assert book.metadata.kernelspec.name == "python3"
    if place == "session":
        book.cells.insert(0, nbformat.v4.new_code_cell(SESSION))
        book.cells.append(nbformat.v4.new_code_cell("stop_session(spark)"))
    client = NotebookClient(book, timeout=150, resources={"metadata": {"path": tmp_path}})
    client.execute(env=os.environ | {"FRUITS_BACKEND": place, "TMPDIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)})
    printed = {cell.source.splitlines()[0]: _printed(cell) for cell in book.cells if cell.cell_type == "code"}
    texts = "".join(printed.values())
    assert f"backend: {place.replace('session', 'spark')}\n" in texts
    assert "48 images, 48 rows, {} rejects\n" in texts
    assert "identical components: True\n" in texts
    one = printed["from fruits.images.decode import decode"].splitlines()
    assert one[0].endswith(f"has the label {one[0].partition('/')[0]}")
    assert one[1].startswith("pixels: (224, 224, 3) of uint8 from ")
    assert one[2].startswith("features: (1280,) of float32 starting with [")


def _printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def test_packaged_notebook_is_the_one_in_docs() -> None:
    assert (ROOT / "backends" / "aws" / "emr" / NOTEBOOK.name).resolve() == NOTEBOOK


def test_notebook_is_valid_and_has_no_stored_output() -> None:
    book = notebook()
    nbformat.validate(book)
    assert all(not cell.get("outputs") for cell in book.cells)
