"""Invalid values of every option: a message and exit code 2 or 1, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import pictures
from tests.hostile.conftest import EXAMPLES, Fruits

# A command that accepts all its options fails here, before the network runs: one image is too few for a model.
ENOUGH = "1 usable image: a model needs at least 2"
INVALID = (
    "",
    "-",
    "-1",
    "1.5",
    "1e400",
    "nan",
    "0x10",
    "\u0663",
    "9" * 5_000,
    "None",
    "a,b",
    "path,path",
    "../..",
    "x" * 300,
    "%s%n",
    "a\nb",
    "[/]",
    "http://[",
)
PLACES = (
    "",
    " ",
    "/dev/null",
    "/dev/null/x",
    "~nobody/x",
    "x" * 300,
    "x/" * 3_000,
    "%s%n",
    "`id`",
    "a\nb",
    "\u202e",
    "[red]x[/]",
    "://",
    "nowhere://x",
    "s3://",
    "memory://",
    "zip://x::y",
    "filecache://x",
    "simplecache://x",
    "tar://x",
    "libarchive://x",
)
BREAK = ("http://[", "github://x", "reference://x", "dir://x")  # file systems whose own errors are not helpful
VALUED = (
    "--components",
    "--backbone",
    "--engine",
    "--weights",
    "--solver",
    "--limit",
    "--max-reject-fraction",
    "--backend",
    "--cluster",
    "--cluster-file",
    "--workers",
    "--s3-endpoint",
    "--partition-size",
    "--format",
    "--columns",
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "label"
    folder.mkdir(parents=True)
    (folder / "one.png").write_bytes(pictures.png(4, 4))
    return folder.parent


@pytest.mark.parametrize("option", VALUED)
def test_invalid_values_of_each_option_are_rejected(fruits: Fruits, images: Path, option: str) -> None:
    results = {value: fruits("run", images, "--out", "out", option, value) for value in INVALID}
    assert {value: ended.err for value, ended in results.items() if not ended.refused} == {}
    assert not Path("out").exists()


@pytest.mark.parametrize("option", ["--limit", "--partition-size"])
def test_counts_beyond_64_bits_are_rejected(fruits: Fruits, images: Path, option: str) -> None:
    assert fruits("run", images, "--out", "out", option, "9" * 30).refused


def test_partition_larger_than_memory_is_rejected(fruits: Fruits, images: Path) -> None:
    assert "--partition-size" in fruits("run", images, "--out", "out", "--partition-size", "100000000").err


@EXAMPLES
@given(
    option=st.sampled_from(VALUED), value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
)
def test_any_text_for_any_option_is_rejected(fruits: Fruits, images: Path, option: str, value: str) -> None:
    ended = fruits("run", images, "--out", "out", f"{option}={value}")
    assert ended.refused, ended.err


@pytest.mark.parametrize("address", [*PLACES, *BREAK])
def test_invalid_image_folders_are_rejected(fruits: Fruits, address: str) -> None:
    ended = fruits("run", "--out", "out", "--", address)
    assert ended.refused, ended.err


@pytest.mark.parametrize(
    "argv",
    [
        ("--images", "-1"),
        ("--images", "0"),
        ("--labels", "0"),
        ("--labels", "99"),
        ("--broken", "-1"),
        ("--seed", "-1"),
        ("--images", "x"),
        ("--seed", "1e3"),
    ],
)
def test_invalid_sample_options_are_rejected(fruits: Fruits, argv: tuple[str, str]) -> None:
    assert fruits("sample", "drawn", *argv).refused


@pytest.mark.parametrize("value", ["nan", "-inf", "x", "-1"])
def test_invalid_tolerances_are_rejected(fruits: Fruits, value: str) -> None:
    assert fruits("compare", "a", "b", "--tolerance", value).refused


@pytest.mark.parametrize(
    ("command", "value"),
    [
        *(
            (command, value)
            for command in ("compare", "transform")
            for value in ("", "/dev/null", "nowhere", "\x1b[2J")
        ),
        ("transform", "x" * 300),
        ("compare", "x" * 300),
        ("transform", "http://["),
        ("compare", "github://x"),
    ],
)
def test_invalid_outputs_to_read_are_rejected(fruits: Fruits, images: Path, command: str, value: str) -> None:
    argv = (value, value) if command == "compare" else (images, "--out", "out", "--model", value)
    assert fruits(command, *argv).refused


@pytest.mark.parametrize(
    "value",
    ["/dev/null", "/dev/null/x", "/proc/self/x", "x" * 300, "nowhere://x", "http://["],
)
def test_invalid_output_folders_are_rejected(fruits: Fruits, images: Path, value: str) -> None:
    assert fruits("run", images, "--out", value).refused


def test_empty_out_is_rejected(fruits: Fruits, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "--out" in fruits("run", images, "--out", "").err


def test_control_characters_are_escaped_in_messages(fruits: Fruits) -> None:
    assert "\x1b" not in fruits("run", "\x1b]0;owned\x07", "--out", "out").err


def run_child(*argv: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a child process, because arguments that are not UTF-8 cannot be passed within this one."""
    environ = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    return subprocess.run([sys.executable, "-m", "fruits", *argv], capture_output=True, env=environ, timeout=300)


def test_folder_name_that_is_not_utf_8_gives_no_traceback(tmp_path: Path) -> None:
    done = run_child("sample", os.fsencode(tmp_path) + b"/\xff", "--images", "1", "--json")
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)
