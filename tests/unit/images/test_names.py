"""Names of files: the same in every locale, and different for different bytes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fruits.text import name_bytes, name_text

JOB = """
from fruits.cli.main import main
from fruits.jobs import pipeline
from tests.conformance.crashing import PixelNetwork

pipeline.compile_network = lambda *_: PixelNetwork()
main()
"""
NAMES = [
    "pêche",
    "Z",
    "水果",
    "\ue000",
    "\U0001f351",
    os.fsdecode(b"p\xeache"),
    os.fsdecode(b"\xff"),
    "\\xff",
    "\\x5cxff",
]
texts = st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"80", b"\xff", b"\x80", b"\\xff", "é".encode(), b"a"]))


def decode(text: str) -> bytes:
    """Return the bytes of a name, as :func:`name_text` documents."""
    return re.sub(rb"\\x(5c|[89a-f][0-9a-f])", lambda match: bytes.fromhex(match[1].decode()), text.encode())


@given(texts.map(b"".join))
def test_text_of_a_name_can_be_decoded_to_its_bytes(name: bytes) -> None:
    assert decode(name_text(name.decode("utf-8", "surrogateescape"))) == name


@pytest.mark.parametrize("name", ["Apple/1.jpg", "back\\slash.jpg", "pêche/🍑.jpg", "\\x41.jpg", "new\nline.jpg"])
def test_text_of_an_ordinary_name_is_the_name(name: str) -> None:
    assert name_text(name) == name


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the environment of each locale: UTF-8, the ASCII of C, and Latin-1 where it can be compiled."""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = {"utf-8": {"LC_ALL": "C.UTF-8"}, "ascii": {**plain, "LC_ALL": "C"}}
    folder = tmp_path_factory.mktemp("locales")
    compiled = folder / "en_US.ISO-8859-1"
    try:
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", compiled], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return found
    return found | {"iso8859-1": {**plain, "LC_ALL": compiled.name, "LOCPATH": str(folder)}}


def test_labels_paths_and_order_do_not_depend_on_the_locale(tmp_path: Path, locales: dict[str, dict[str, str]]) -> None:
    images = tmp_path / "imágenes"
    for number, name in enumerate(NAMES):
        (images / name).mkdir(parents=True)
        Image.new("RGB", (10, 10), (number * 20, 50, 50)).save(images / name / "1.png")
    seen = {}
    for encoding, variables in locales.items():
        out = tmp_path / f"salida-ñ-{encoding}"
        argv = ["run", images, "--out", out, "--components", "2", "--backend", "local", "--quiet", "--json"]
        environ = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
        check = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
        assert subprocess.run(check, env=environ, capture_output=True, text=True, check=True).stdout.strip() == encoding
        ended = subprocess.run([sys.executable, "-c", JOB, *argv], env=environ, capture_output=True, check=False)
        assert ended.returncode == 0, ended.stderr
        (rows,) = (out / "rows").glob("part-*.parquet")
        columns = pq.read_table(rows, columns=["path", "label"]).to_pydict()
        (plan,) = (out / "plan").glob("part-*.parquet")
        seen[encoding] = columns, hashlib.sha256(plan.read_bytes()).hexdigest()
    assert all(each == seen["utf-8"] for each in seen.values())
    columns, _ = seen["utf-8"]
    assert columns["label"] == [name_text(name) for name in sorted(NAMES, key=name_bytes)]
    assert len(set(columns["path"])) == len(NAMES)
