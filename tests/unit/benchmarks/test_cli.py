from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import append
from fruits.cli.main import main
from tests.bench_records import WRONG, record, session


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *map(str, words)])
    return int(ended.value.code or 0)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    for one in session():
        append(tmp_path, one)
    return tmp_path


def test_without_the_source_it_says_where_the_benchmarks_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fruits.cli.tool_commands.find_spec", lambda name: None)
    assert call("photos") == 2
    assert "not part of the installed package" in capsys.readouterr().err


def test_help_tells_the_three_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("measure", "report", "compare"))
    assert call() == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["compar", "old", "new"], "fruits bench compar: no such command, and no such folder. Meant: compare?"),
        (["--images", "3"], "--images 3: a set has its own. Name what to run with --scenario."),
        (["--set", "nothing"], "--set nothing: not known. Allowed: standard, full, quick"),
        (["--scenario", "nothing"], "--scenario nothing: not known"),
        (["--scenario", "plan", "--backend", "ray"], "--backend ray: not for plan"),
        (["--scenario", "plan", "--images", "many"], "--images many: not allowed"),
        (["--scenario", "plan", "--workers", "0"], "--workers 0: not allowed"),
        (["--workers", "1,2"], "a set takes one count"),
        (["--scenario", "featurize", "--out", "{}"], "works on images. Give their folder"),
        (["report", "nowhere"], "nowhere: no records.jsonl there"),
        (["compare", "nowhere", "nowhere"], "nowhere: no records.jsonl there"),
    ],
)
def test_what_cannot_be_done_is_told_in_words(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*(word.format(tmp_path) for word in words)) == 2
    assert message in capsys.readouterr().err


def test_a_report_tells_what_was_wrong_and_fails(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", measured, "--json") == 1
    values = json.loads(capsys.readouterr().out)
    assert (values["failed"], values["wrong"]) == (0, 5)
    assert Path(values["page"]).is_file()
    assert Path(values["text"]).is_file()


def test_where_nothing_was_done_there_is_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(tmp_path, record(status="failed", reason="died", answer=None))
    assert call("report", tmp_path) == 1
    assert "none of the 1 runs came to an end" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_two_measurements_are_compared(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    append(other, record(rate=700))
    append(other, record(backend="spark", rate=9_000, answer=WRONG))
    assert call("compare", measured, other) == 0
    shown = capsys.readouterr().out
    assert "faster" in shown
    assert "wrong answer" in shown
    assert call("compare", measured, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)["changes"]
    assert [change["verdict"] for change in found] == ["faster", "wrong answer: a cosine of 0.9"]
