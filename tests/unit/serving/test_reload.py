"""A new version of the recogniser while the server runs."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from fruits.recogniser.files import JSON, StoredRecogniser
from fruits.serving.current import CurrentRecogniser
from fruits.serving.metrics import Metrics
from tests.recognisers import write
from tests.unit.serving.running import Running, run_server, wait_for


@pytest.fixture
def own(stored: StoredRecogniser, tmp_path: Path) -> Path:
    return write(stored, tmp_path / "recogniser")


@pytest.fixture
def reloading(own: Path) -> Iterator[Running]:
    with run_server(own) as running:
        yield running


def renamed(stored: StoredRecogniser, suffix: str) -> StoredRecogniser:
    return dataclasses.replace(stored, labels=tuple(f"{label} {suffix}" for label in stored.labels))


def test_a_new_version_answers_and_no_request_is_dropped(
    reloading: Running, stored: StoredRecogniser, own: Path, banana: bytes
) -> None:
    answers: list[tuple[int, str, str]] = []
    stop = threading.Event()

    def send() -> None:
        connection = reloading.connect()
        while not stop.is_set():
            connection.request("POST", "/v1/recognise", banana)
            response = connection.getresponse()
            value = orjson.loads(response.read())
            answers.append((response.status, value["label"], value["model"]["version"]))
        connection.close()

    client = threading.Thread(target=send)
    client.start()
    try:
        versions = [reloading.service.recogniser.version]
        for suffix in ("second", "third"):
            wait_for(lambda: answers and answers[-1][2] == versions[-1])
            write(renamed(stored, suffix), own)
            wait_for(lambda: reloading.service.recogniser.version != versions[-1])
            versions.append(reloading.service.recogniser.version)
        wait_for(lambda: answers[-1][2] == versions[-1])
    finally:
        stop.set()
        client.join()
    labels = dict(zip(versions, ("Banana", "Banana second", "Banana third"), strict=True))
    assert {status for status, _, _ in answers} == {200}
    assert {version: label for _, label, version in answers} == labels
    assert reloading.metric('fruits_recogniser_reloads_total{result="loaded"}') == 2


@pytest.mark.parametrize("damage", ["missing", "corrupt", "network"])
def test_a_recogniser_that_cannot_be_used_leaves_the_current_one(
    reloading: Running, stored: StoredRecogniser, own: Path, banana: bytes, damage: str
) -> None:
    version = reloading.service.recogniser.version
    if damage == "missing":
        shutil.rmtree(own)
    elif damage == "corrupt":
        (own / JSON).write_bytes(b"{}")
    else:
        write(dataclasses.replace(stored, network={**stored.network, "weights": "ab" * 32}), own)
    wait_for(lambda: reloading.metric('fruits_recogniser_reloads_total{result="failed"}') == 1)
    answer = reloading.recognise(banana)
    assert (answer.status, answer.json()["model"]["version"]) == (200, version)
    write(renamed(stored, "repaired"), own)
    wait_for(lambda: reloading.service.recogniser.version != version)
    assert reloading.recognise(banana).json()["label"] == "Banana repaired"


def test_a_folder_that_cannot_be_listed_is_reported_once(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    current, metrics = CurrentRecogniser(str(own)), Metrics()
    version = current.value.version
    shutil.rmtree(own)
    own.symlink_to(own)
    for _ in range(3):
        current.refresh(metrics)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "symbolic links" in caplog.text
    assert current.value.version == version


def test_a_copy_whose_metadata_arrive_first_is_loaded_when_it_is_complete(
    reloading: Running, stored: StoredRecogniser, own: Path, tmp_path: Path
) -> None:
    version = reloading.service.recogniser.version
    changed = dataclasses.replace(stored, arrays={**stored.arrays, "mean": stored.arrays["mean"] + 1.0})
    new = write(changed, tmp_path / "new")
    shutil.copy(new / JSON, own)
    wait_for(lambda: reloading.metric('fruits_recogniser_reloads_total{result="failed"}') == 1)
    assert reloading.service.recogniser.version == version
    for path in new.iterdir():
        shutil.copy(path, own)
    wait_for(lambda: reloading.service.recogniser.version != version)


def test_a_link_that_is_switched_is_a_new_version(stored: StoredRecogniser, tmp_path: Path, banana: bytes) -> None:
    first, second = write(stored, tmp_path / "first"), write(renamed(stored, "new"), tmp_path / "second")
    link, other = tmp_path / "current", tmp_path / "next"
    link.symlink_to(first)
    with run_server(link) as running:
        assert running.recognise(banana).json()["label"] == "Banana"
        other.symlink_to(second)
        other.replace(link)
        wait_for(lambda: running.recognise(banana).json()["label"] == "Banana new")
