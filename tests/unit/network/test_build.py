from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fruits.errors import SettingsError
from fruits.network import build
from fruits.network.build import build_in_subprocess, require_keras

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('No space left on device')", "exited with code 1(.|\n)*No space left on device"),
        ("import os; os.kill(os.getpid(), 9)", "exited with code -9"),
    ],
)
def test_error_quotes_the_standard_error_of_the_failed_subprocess(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{PYTHON}\nimport sys\n{code}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SettingsError, match=words):
        build_in_subprocess("openvino", "MobileNetV2", tmp_path / "a", tmp_path / "b", origin="a test")


def test_missing_keras_is_an_error_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_keras("a test")
    monkeypatch.setattr(build, "find_spec", lambda name: None if name in ("keras", "scipy") else object())
    with pytest.raises(SettingsError, match=r"a test needs Keras; not installed: keras, scipy\..*'fruits\[keras\]'"):
        require_keras("a test")
    with pytest.raises(SettingsError, match=r"openvino of ResNet50 from here needs Keras.*'fruits\[keras\]'"):
        build_in_subprocess("openvino", "ResNet50", tmp_path / "a", tmp_path / "b", origin="here")
