"""The benchmark harness end to end: two backends and one peer on a generated sample."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.record import SCHEMA, STAGES, read_records
from fruits.images.sample import generate
from fruits.model.rows import features_table
from fruits.storage.parquet import vectors

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def bench(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fruits", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a session on generated images, which are in the same folder."""
    folder = tmp_path_factory.mktemp("bench")
    generate(folder / "images", images=32)
    out = folder / "out"
    options = ["--images", "40", "--partition-size", "8", "--workers", "2", "--repeat", "1", "--out", out]
    scenarios = ["--scenario", "featurize,bare-loop,peer-tfdata", "--backend", "dask,local"]
    done = bench("measure", folder / "images", *scenarios, *options)
    assert done.returncode == 0, done.stderr
    assert "0 failed, 0 with a wrong answer" in done.stdout
    return out


def test_every_run_has_a_complete_record_and_a_checked_answer(measured: Path) -> None:
    records = read_records(measured)
    sides = [(record.case.scenario, record.case.backend, record.control) for record in records]
    assert sides == [
        ("featurize", "dask", False),
        ("featurize", "local", False),
        ("bare-loop", "processes", False),
        ("peer-tfdata", "tfdata", False),
        ("featurize", "dask", True),
    ]
    for record in records:
        assert (record.schema, record.status, record.reason) == (SCHEMA, "done", "")
        assert {"start-up", "featurize", "shutdown"} <= set(record.seconds) <= set(STAGES)
        assert all(taken >= 0 for taken in record.seconds.values())
        assert record.wall == pytest.approx(sum(record.seconds.values()), abs=0.01)
        assert 0 < record.work < record.wall
        assert record.cpu_seconds > 0.1
        assert record.bytes_written > 40 * 1280 * 4 // 2
        assert record.driver_peak > 50e6
        assert record.answer is not None
        theirs = record.case.scenario == "peer-tfdata"
        assert record.answer.verdict == ("close" if theirs else "identical")
        assert (record.answer.largest > 0) is theirs
    with_workers = {record.case.backend for record in records if record.worker_peak > 50e6}
    assert {"dask", "processes"} <= with_workers
    digests = {record.answer.digest for record in records[:3] if record.answer is not None}
    assert len(digests) == 1


def test_the_report_ranks_the_cases_and_has_plots(measured: Path) -> None:
    page, text = (measured / "report.html").read_text(), (measured / "report.md").read_text()
    assert (measured / "plots" / "throughput.svg").is_file()
    for name in ("Dask", "one process, threads", "bare loop, no engine", "tf.data + Keras"):
        assert name in page
        assert f"| {name} |" in text
    assert str(measured) in page  # in the command


def test_a_wrong_answer_is_reported_and_not_ranked(measured: Path) -> None:
    (part, *_) = sorted(measured.glob("cache/reference-*/features/*.parquet"))
    table = pq.read_table(part)
    features = vectors(table["features"]).copy()
    features[0, 0] += np.float32(1)
    pq.write_table(features_table(table["path"].to_pylist(), table["label"].to_pylist(), features), part)
    options = ["--images", "32", "--partition-size", "8", "--workers", "1", "--repeat", "1", "--out", measured]
    done = bench(measured.parent / "images", "--scenario", "featurize", "--backend", "local", *options)
    assert done.returncode == 1, done.stderr
    assert "2 with a wrong answer" in done.stdout
    wrong = [record for record in read_records(measured) if record.group == "featurize 32"]
    assert [record.ranked for record in wrong] == [False, False]
    assert "wrong answer: must be bit-identical; differ by up to 1" in (measured / "report.md").read_text()


def test_the_exact_solver_runs_with_a_relative_output_folder(tmp_path: Path) -> None:
    options = ["--images", "600", "--components", "8", "--workers", "1", "--repeat", "1", "--out", "bench"]
    done = bench("--scenario", "moments", "--backend", "local", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [record.answer for record in read_records(tmp_path / "bench")]
    assert [answer and answer.verdict for answer in answers] == ["identical", "identical"]
