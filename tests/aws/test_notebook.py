"""Every cell of docs/feature_extraction.ipynb runs in a new process, on Dask and in a Spark session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "feature_extraction.ipynb"
SESSION = """
from backends.spark.session import start_session, stop_session
spark = start_session(2, None, {})
"""


@pytest.mark.parametrize("backend", ["dask", "spark"])
def test_every_cell_runs(tmp_path: Path, backend: str) -> None:
    cells = [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    before, after = (SESSION, "stop_session(spark)") if backend == "spark" else ("", "")
    body = "\n".join([before, *cells, after])
    program = tmp_path / "notebook.py"  # Dask workers import the main program
    program.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in body.splitlines()))
    environ = {**os.environ, "FRUITS_BACKEND": backend, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"backend: {backend}" in done.stdout
    assert "48 images, 48 rows, {} rejects" in done.stdout
    assert "identical components: True" in done.stdout


def test_the_packaged_notebook_is_the_one_in_docs() -> None:
    assert (ROOT / "backends" / "aws" / "emr" / NOTEBOOK.name).resolve() == NOTEBOOK


def test_the_notebook_has_no_stored_output() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells)
