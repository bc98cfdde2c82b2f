"""The full wheelhouse of a node, and the environment built from it: make test-stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.aws.emr.releases import DEFAULT, RELEASES
from backends.aws.staging.wheelhouse import gather
from tests.outputs import is_complete

SCRIPT = Path(__file__).parents[2] / "backends" / "aws" / "emr" / "bootstrap_emr.sh"


@pytest.mark.timeout(900)
def test_a_job_runs_in_an_environment_built_from_the_wheelhouse(tmp_path: Path) -> None:
    python = f"python{RELEASES[DEFAULT].python}"
    gather(tmp_path / "wheelhouse", RELEASES[DEFAULT])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [SCRIPT, tmp_path / "wheelhouse", tmp_path / "prefix", python],
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    arguments = ["demo", "--out", str(tmp_path / "demo"), "--images", "40", "--backend", "dask", "--workers", "1"]
    job = subprocess.run(
        [tmp_path / "prefix" / "bin" / "fruits", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert job.returncode == 0, job.stderr
    assert is_complete(tmp_path / "demo" / "output")
