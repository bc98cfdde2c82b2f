"""A complete job with one malicious image in twenty: each is a reject, and all others are rows."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from fruits.images.sample import generate
from tests.hostile import pictures
from tests.hostile.conftest import Fruits
from tests.outputs import report_of

GOOD = 152


def test_malicious_images_are_rejected_and_all_others_become_rows(fruits: Fruits, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    generate(folder, images=GOOD, labels=2)
    label = sorted(folder.iterdir())[0]
    whole = sorted(label.iterdir())[0].read_bytes()
    bad = {
        "cut.png": (pictures.png(99, 99)[:60], "truncated"),
        "claims.jpg": (pictures.jpeg_claiming(65_500, 65_500), "too-large"),
        "line.png": (pictures.png(30_000_000, 1, bits=1, colour=0), "too-large"),
        "scans.jpg": (pictures.jpeg_of_scans(64, 64, 5_000), "too-large"),
        "text.jpg": (b"text", "not-an-image"),
        "empty.gif": (b"", "empty"),
    }
    for name, (data, _) in bad.items():
        (label / name).write_bytes(data)
    with (label / "terabytes.jpg").open("wb") as file:
        file.truncate(2**43)
    (label / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(label / "fifo.jpg")
    (tmp_path / "secret").write_bytes(whole)
    (label / "out.jpg").symlink_to(tmp_path / "secret")

    ended = fruits("run", folder, "--out", "out", "--backend", "local", "--components", "2", "--partition-size", "50")
    assert ended.code == 0, ended.err
    assert "skipped links to folders, and to files outside: 1" in ended.err
    report = report_of("out")
    reasons = Counter(reason for _, reason in bad.values()) + Counter(["too-large", "unreadable"])
    assert report["rejects"] == dict(reasons)
    assert (report["images"], report["rows"], report["ignored"]) == (GOOD + 8, GOOD, 2)
    rejects = pq.read_table("out/rejects").to_pydict()
    actual = {Path(path).name: reason for path, reason in zip(rejects["path"], rejects["reason"], strict=True)}
    expected = {name: reason for name, (_, reason) in bad.items()}
    assert actual == expected | {"terabytes.jpg": "too-large", "round.jpg": "unreadable"}
