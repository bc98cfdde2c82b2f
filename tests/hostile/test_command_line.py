"""Every value of the command line, however absurd: words and exit code 2 or 1, and never a traceback."""

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

# One image is too few for a model: a command that takes all its options for good ends there, before the network.
ENOUGH = "1 usable image: a model needs at least 2"
ABSURD = (
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
BREAK = ("http://[", "github://x", "reference://x", "dir://x")  # what each says is not meant for the one who gave it
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
def test_absurd_values_of_each_option(fruits: Fruits, images: Path, option: str) -> None:
    found = {value: fruits("run", images, "--out", "out", option, value) for value in ABSURD}
    assert {value: ended.err for value, ended in found.items() if not ended.refused} == {}
    assert not Path("out").exists()


@pytest.mark.parametrize("option", ["--limit", "--partition-size"])
def test_counts_beyond_64_bits_are_refused_or_served(fruits: Fruits, images: Path, option: str) -> None:
    assert fruits("run", images, "--out", "out", option, "9" * 30).refused


def test_a_partition_of_more_images_than_memory_holds_is_refused(fruits: Fruits, images: Path) -> None:
    assert "--partition-size" in fruits("run", images, "--out", "out", "--partition-size", "100000000").err


@EXAMPLES
@given(
    option=st.sampled_from(VALUED), value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
)
def test_any_text_for_any_option(fruits: Fruits, images: Path, option: str, value: str) -> None:
    ended = fruits("run", images, "--out", "out", f"{option}={value}")
    assert ended.refused, ended.err


@pytest.mark.parametrize("address", [*PLACES, *BREAK])
def test_absurd_places_of_images(fruits: Fruits, address: str) -> None:
    ended = fruits("run", "--out", "out", "--", address)
    assert ended.refused, ended.err


@pytest.mark.parametrize(
    "words",
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
def test_absurd_samples(fruits: Fruits, words: tuple[str, str]) -> None:
    assert fruits("sample", "drawn", *words).refused


@pytest.mark.parametrize("value", ["nan", "-inf", "x", "-1"])
def test_absurd_tolerances(fruits: Fruits, value: str) -> None:
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
def test_absurd_outputs_to_read(fruits: Fruits, images: Path, command: str, value: str) -> None:
    words = (value, value) if command == "compare" else (images, "--out", "out", "--model", value)
    assert fruits(command, *words).refused


@pytest.mark.parametrize(
    "value",
    ["/dev/null", "/dev/null/x", "/proc/self/x", "x" * 300, "nowhere://x", "http://["],
)
def test_absurd_places_of_the_output(fruits: Fruits, images: Path, value: str) -> None:
    assert fruits("run", images, "--out", value).refused


def test_an_empty_out_as_of_a_variable_that_is_not_set_is_refused(
    fruits: Fruits, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "--out" in fruits("run", images, "--out", "").err


def test_what_a_message_names_does_not_steer_the_terminal(fruits: Fruits) -> None:
    assert "\x1b" not in fruits("run", "\x1b]0;owned\x07", "--out", "out").err


def apart(*words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a shell does: in this process a word that is not UTF-8 is not what it is there."""
    environ = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    return subprocess.run([sys.executable, "-m", "fruits", *words], capture_output=True, env=environ, timeout=60)


def test_a_folder_whose_name_is_not_utf_8_is_no_traceback(tmp_path: Path) -> None:
    done = apart("sample", os.fsencode(tmp_path) + b"/\xff", "--images", "1", "--json")
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)
