"""The program of an EMR step: the command, its log, its result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

STEP = Path(__file__).parents[2] / "backends" / "aws" / "emr" / "emr_step.py"


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    ended = subprocess.run(
        [sys.executable, STEP, folder, "{}", *arguments], capture_output=True, text=True, cwd=folder.parent
    )
    result = json.loads((folder / "result.json").read_text())
    assert ended.stderr == (folder / "stderr.txt").read_text()
    return ended.returncode, result, ended.stderr


def test_a_command_stores_its_log_and_its_result(tmp_path: Path) -> None:
    code, result, log = run(
        tmp_path / "job", "demo", "--out", str(tmp_path / "demo"), "--images", "40", "--backend", "local"
    )
    assert code == result["exit_code"] == 0
    assert (result["answer"]["images"], result["answer"]["rows"]) == (43, 40)
    assert "featurize: 43 images" in log


def test_a_failing_command_stores_its_error_and_exit_code(tmp_path: Path) -> None:
    code, result, log = run(tmp_path / "job", "compare", "nowhere", "nowhere")
    assert code == result["exit_code"] == 2
    assert result["answer"]["error"]["message"] in " ".join(log.split())
