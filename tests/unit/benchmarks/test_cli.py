from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import append
from fruits.cli.main import main
from tests.bench_records import WRONG, record, session


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    for one in session():
        append(tmp_path, one)
    return tmp_path


def test_an_installed_package_refers_to_the_source_checkout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fruits.cli.tool_commands.find_spec", lambda name: None)
    assert call("photos") == 2
    assert "not part of the installed package" in capsys.readouterr().err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("measure", "report", "compare"))
    assert call() == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["compar", "old", "new"], "fruits bench compar: no such command or folder. Did you mean compare?"),
        (["--images", "3"], "--images 3: only allowed with --scenario. A set has fixed values."),
        (["--megapixels", "12"], "--megapixels 12: only allowed with --scenario. A set has fixed values."),
        (["--scenario", "plan", "--megapixels", "3,big"], "--megapixels 3,big: not allowed. Allowed: numbers above 0"),
        (["--scenario", "plan", "--megapixels", "51"], "--megapixels 51: not allowed. Allowed: numbers above 0"),
        (["--set", "nothing"], "--set nothing: unknown. Allowed: standard, full, quick"),
        (["--scenario", "nothing"], "--scenario nothing: unknown"),
        (["--scenario", "plan", "--backend", "ray"], "--backend ray: not supported by plan"),
        (["--scenario", "plan", "--images", "many"], "--images many: not allowed"),
        (["--scenario", "plan", "--workers", "0"], "--workers 0: not allowed"),
        (["--workers", "1,2"], "a set takes one count"),
        (["--scenario", "featurize", "--out", "{}"], "works on images. Give their folder"),
        (["report", "nowhere"], "nowhere: no records.jsonl."),
        (["compare", "nowhere", "nowhere"], "nowhere: no records.jsonl."),
    ],
)
def test_bad_input_is_reported(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*(argument.format(tmp_path) for argument in arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_report_with_wrong_answers_exits_with_1(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", measured, "--json") == 1
    values = json.loads(capsys.readouterr().out)
    assert (values["failed"], values["wrong"]) == (0, 5)
    assert Path(values["page"]).is_file()
    assert Path(values["text"]).is_file()


def test_a_session_without_a_completed_run_has_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(tmp_path, record(status="failed", reason="died", answer=None))
    assert call("report", tmp_path) == 1
    assert "none of the 1 runs finished" in capsys.readouterr().err
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
