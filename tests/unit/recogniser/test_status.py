"""The commands that describe a recogniser: ``fruits status`` and ``fruits verify``."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fruits
from backends.local import LocalExecutor
from fruits.cli import main as cli
from fruits.recogniser.jobs.status import RecogniserStatus, recogniser_status
from fruits.recogniser.jobs.train import _Run
from tests.unit.jobs.test_pipeline import network  # noqa: F401 - a fixture
from tests.unit.recogniser.test_jobs import draw, fitted

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture
def training(tmp_path: Path) -> fruits.Training:
    return fruits.Training(sources=(str(draw(tmp_path / "images", each=10)),), out=str(tmp_path / "rec"))


def test_a_recogniser_is_described(training: fruits.Training, command: Command) -> None:
    report = fruits.train(training, LocalExecutor())
    code, text = command("status", training.out)
    assert code == 0
    assert f"{report.version}, 4 classes, 40 images" in text
    assert f"40 images, 0 rejects, weight 1: {training.sources[0]}" in text
    assert f"{report.prototypes}, 1 crop of each image" in text
    assert "not finished" not in text
    code, text = command("status", training.out, "--json")
    assert json.loads(text)["version"] == report.version
    code, text = command("verify", training.out)
    assert code == 0
    assert "4 parts" in text
    assert f"{report.version}, 4 classes" in text
    assert "stale" not in text


def test_a_copy_without_commits_is_described(training: fruits.Training, tmp_path: Path) -> None:
    report = fruits.train(training, LocalExecutor())
    (tmp_path / "copy").mkdir()
    for path in Path(training.out).iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / "copy")
    found = recogniser_status(str(tmp_path / "copy"))
    assert found is not None
    assert (found.complete, found.version) == (True, report.version)
    assert [source["state"] for source in found.sources] == ["unknown"]


def test_a_training_that_was_stopped_is_described(
    training: fruits.Training, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fruits.train(training, LocalExecutor())
    assert recogniser_status(training.out) == RecogniserStatus(training.out, complete=False)
    code, text = command("status", training.out)
    assert code == 0
    assert "not finished. Run the same command again" in text


def test_a_damaged_recogniser_is_found(training: fruits.Training, command: Command) -> None:
    fruits.train(training, LocalExecutor())
    (scorer,) = Path(training.out).glob("scorer-*")
    scorer.write_bytes(scorer.read_bytes()[:-1])
    code, text = command("verify", training.out)
    assert code == 1
    assert scorer.name in text
    code, text = command("status", training.out)
    assert code == 2
    assert f"{scorer.name} is corrupt" in text
    scorer.unlink()
    assert f"{scorer.name} is corrupt: it is missing" in command("status", training.out)[1]


def test_another_folder_is_no_recogniser(tmp_path: Path, command: Command) -> None:
    assert recogniser_status(str(tmp_path)) is None
    code, text = command("status", str(tmp_path))
    assert code == 2
    assert "no job here" in text


def test_a_recogniser_is_stale_after_an_update_of_its_source(tmp_path: Path, command: Command) -> None:
    images = draw(tmp_path / "images", each=10)
    source = fitted(images, tmp_path / "features")
    training = fruits.Training(sources=(source,), out=str(tmp_path / "rec"))
    fruits.train(training, LocalExecutor())
    draw(images, each=1, seed=1)
    assert state(training, list_images=False) == "current"
    assert state(training, list_images=True) == "stale"
    fitted(images, tmp_path / "features", update=True)
    assert state(training, list_images=False) == "stale"
    code, text = command("status", training.out)
    assert code == 0
    assert "source 1 has changed since the training" in text
    code, text = command("verify", training.out, "--quiet", "--json")
    assert (code, json.loads(text)["sources"][0]["state"]) == (0, "stale")
    test = draw(tmp_path / "test", each=2, seed=2)
    code, text = command("evaluate", str(test), "--recogniser", training.out, "--out", str(tmp_path / "evaluation"))
    assert f"is stale: its source {images} has changed since the training" in text
    fruits.train(dataclasses.replace(training, overwrite=True), LocalExecutor())
    assert state(training, list_images=True) == "current"
    shutil.rmtree(source)
    assert state(training, list_images=True) == "unknown"
    code, text = command("status", training.out)
    assert (code, "source 1 has not been compared" in text) == (0, True)


def test_a_recogniser_of_a_folder_is_stale_after_a_change_of_an_image(training: fruits.Training) -> None:
    fruits.train(training, LocalExecutor())
    next(Path(training.sources[0]).rglob("*.png")).unlink()
    assert state(training, list_images=False) == "current"
    assert state(training, list_images=True) == "stale"


def test_the_same_features_in_another_output_are_the_same_training(training: fruits.Training, tmp_path: Path) -> None:
    source = fitted(Path(training.sources[0]), tmp_path / "features")
    report = fruits.train(dataclasses.replace(training, sources=(source,)), LocalExecutor())
    copied = str(shutil.copytree(source, tmp_path / "copy"))
    again = fruits.train(dataclasses.replace(training, sources=(copied,)), LocalExecutor())
    assert (again.version, again.seconds) == (report.version, {})


def test_an_archive_that_is_gone_fails_no_command_on_its_features(tmp_path: Path, command: Command) -> None:
    images = draw(tmp_path / "images", each=5)
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", images)
    source = fitted(f"zip://::{archive}", tmp_path / "features", report=False)
    Path(archive).unlink()
    training = fruits.Training(sources=(source,), out=str(tmp_path / "rec"))
    assert fruits.train(training, LocalExecutor()).pictures == 0
    found = fruits.evaluate(source, training.out, str(tmp_path / "evaluation"), LocalExecutor(), left_out=0)
    assert found.images == 20
    assert command("report", source)[0] == 0


def state(training: fruits.Training, *, list_images: bool) -> str:
    found = recogniser_status(training.out, list_images=list_images)
    assert found is not None
    return str(found.sources[0]["state"])
