"""``/v1``: recognition of one image, and what is answered for anything else."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import openapi_spec_validator
import pytest
from PIL import Image

from fruits.recogniser.files import StoredRecogniser
from fruits.recogniser.recogniser import Recogniser
from fruits.serving.web.app import PAGE
from tests.recognisers import small_recogniser, write
from tests.unit.serving.running import Running, run_server

FORM = "multipart/form-data; boundary=edge"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"


def file_part(content: bytes, name: bytes = b"photo") -> bytes:
    return (
        b'Content-Disposition: form-data; name="'
        + name
        + b'"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + content
    )


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def test_the_answer_is_that_of_the_library(running: Running, folder: Path, fruit: dict[str, list[Path]]) -> None:
    recogniser = Recogniser.load(str(folder))
    for paths in fruit.values():
        (expected,) = recogniser.recognise(str(paths[0]))
        answer = running.recognise(paths[0].read_bytes())
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == {
            "label": expected.prediction,
            "confidence": expected.confidence,
            "unknown": False,
            "reason": None,
            "predictions": [{"label": label, "score": score} for label, score in expected.top],
            "model": {"name": "fruits", "version": recogniser.version},
        }


def test_drawn_fruit_is_recognised(running: Running, fruit: dict[str, list[Path]]) -> None:
    for label, paths in fruit.items():
        assert running.recognise(paths[1].read_bytes()).json()["label"] == label


def test_two_crops(fruit: dict[str, list[Path]], tmp_path: Path) -> None:
    folder = write(small_recogniser(fruit, crops=2), tmp_path)
    (expected,) = Recogniser.load(str(folder)).recognise(str(fruit["Pear"][1]))
    with run_server(folder) as running:
        answer = running.recognise(fruit["Pear"][1].read_bytes()).json()
        assert running.request("GET", "/v1/model").json()["crops"] == 2
    assert answer["label"] == "Pear"
    assert answer["predictions"] == [{"label": label, "score": score} for label, score in expected.top]


def test_the_image_can_be_the_file_of_a_form(running: Running, banana: bytes) -> None:
    note = b'Content-Disposition: form-data; name="note"\r\n\r\nripe?'
    answer = running.recognise(form(note, file_part(banana)), content_type=FORM)
    assert answer.json() == running.recognise(banana).json()


@pytest.mark.parametrize(
    ("body", "charset", "message"),
    [
        (form(b'Content-Disposition: form-data; name="note"\r\n\r\nripe?'), "utf-8", "The form has no file"),
        (form(file_part(b"a"), file_part(b"b")), "utf-8", "Too many files"),
        (form(b"Content-Disposition: form-data\r\n\r\nx"), "utf-8", "must be provided"),
        (form(file_part(b"a")), "undefined", "undefined encoding"),
        (b"--edge\r\nno form", "utf-8", "Invalid multipart data"),
    ],
)
def test_a_form_without_exactly_one_file_is_400(running: Running, body: bytes, charset: str, message: str) -> None:
    answer = running.recognise(body, content_type=f"{FORM}; charset={charset}")
    assert answer.status == 400
    assert message in answer.json()["error"]["message"]


def test_nearest_training_images_are_added_on_request(
    running: Running, banana: bytes, stored: StoredRecogniser
) -> None:
    nearest = running.recognise(banana, "?nearest=true").json()["nearest"]
    assert nearest[0]["label"] == "Banana"
    assert len(nearest) == 3
    kind, _, data = nearest[0]["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(data) == stored.thumbnails["0000000000000001"]


def test_a_missing_thumbnail_is_null(stored: StoredRecogniser, banana: bytes, tmp_path: Path) -> None:
    with run_server(write(dataclasses.replace(stored, thumbnails={}), tmp_path)) as running:
        nearest = running.recognise(banana, "?nearest=1").json()["nearest"]
    assert [one["image"] for one in nearest] == [None] * 3


def test_a_rejected_image_has_a_reason_and_the_closest_labels(
    stored: StoredRecogniser, banana: bytes, tmp_path: Path
) -> None:
    strict = dataclasses.replace(stored, thresholds={**stored.thresholds, "distance": (-1.0,)})
    with run_server(write(strict, tmp_path)) as running:
        answer = running.recognise(banana).json()
        assert running.metric('fruits_images_total{result="unlike-anything"}') == 1
    assert (answer["label"], answer["unknown"], answer["reason"]) == (None, True, "unlike-anything")
    assert answer["predictions"][0]["label"] == "Banana"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "empty"),
        (b"hello", 415, "not an image"),
        (b"%PDF-1.7", 415, "JPEG, PNG, WebP"),
        (b"\xff\xd8\xff" + bytes(200), 422, "undecodable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), 422, "undecodable"),
    ],
)
def test_unusable_images(running: Running, body: bytes, status: int, message: str) -> None:
    answer = running.recognise(body)
    assert answer.status == status
    assert answer.json()["error"]["status"] == status
    assert message in answer.json()["error"]["message"]


def test_a_truncated_image_is_422(running: Running, banana: bytes) -> None:
    answer = running.recognise(banana[: len(banana) // 2])
    assert answer.status == 422
    assert "truncated" in answer.json()["error"]["message"]


def test_an_image_of_too_many_pixels_is_413(running: Running) -> None:
    answer = running.recognise(encoded(np.zeros((8000, 8000), np.uint8), "PNG"))
    assert answer.status == 413
    assert "50,000,000" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_accepted(running: Running, kind: str, banana: bytes) -> None:
    with Image.open(BytesIO(banana)) as image:
        answer = running.recognise(encoded(np.asarray(image), kind), content_type="application/octet-stream")
    assert (answer.status, answer.json()["label"]) == (200, "Banana")


def test_hostile_labels_reach_the_client_as_json(
    stored: StoredRecogniser, fruit: dict[str, list[Path]], tmp_path: Path
) -> None:
    labels = tuple(sorted(["<script>alert(1)</script>", "x" * 10_000, '"\\\r\n\u202e', *stored.labels[3:]]))
    with run_server(write(dataclasses.replace(stored, labels=labels), tmp_path)) as running:
        answers = [running.recognise(paths[0].read_bytes()) for paths in fruit.values()]
        model = running.request("GET", "/v1/model").json()
        metadata = running.request("GET", "/v2/models/fruits")
    assert {answer.json()["label"] for answer in answers} == set(labels)
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    assert model["labels"] == list(labels)
    assert metadata.status == 200


def test_methods_and_paths_that_do_not_exist(running: Running) -> None:
    assert running.request("GET", "/v1/recognise").status == 405
    assert running.request("GET", "/v1/recognize").json()["error"]["status"] == 404
    assert running.request("GET", "/%00/../../etc/passwd").status == 404


def test_the_page_and_its_files(running: Running) -> None:
    for path, (_, media_type) in PAGE.items():
        answer = running.request("GET", path)
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, media_type)
    page = running.request("GET", "/").body.decode()
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert running.request("GET", f"/{name}").status == 200
    assert not re.search(r'\sstyle=|\son\w+="|<script>|https?://', page)


def test_openapi_describes_every_endpoint(running: Running) -> None:
    description = json.loads(running.request("GET", "/openapi.json").body)
    assert (description["openapi"], description["info"]["version"]) == ("3.1.0", running.service.software)
    described = {
        (path, method.upper())
        for path, item in description["paths"].items()
        for method in item.keys() & {"get", "post", "put", "delete", "patch"}
    }
    app = running.server.config.loaded_app
    while not hasattr(app, "routes"):
        app = getattr(app, "_app", None) or app.app
    actual = {
        (route.path, method) for route in app.routes if route.path not in PAGE for method in route.methods - {"HEAD"}
    }
    assert described == actual
    openapi_spec_validator.validate(description)
    references = set(re.findall(r"#/components/(\w+/\w+)", json.dumps(description)))
    components = {kind: values for kind, values in description["components"].items() if kind != "securitySchemes"}
    assert references == {f"{kind}/{name}" for kind, values in components.items() for name in values}


def test_the_answer_has_the_described_fields(running: Running, banana: bytes) -> None:
    description = json.loads(running.request("GET", "/openapi.json").body)
    answer = running.recognise(banana, "?nearest=true").json()
    assert answer.keys() == description["components"]["schemas"]["Answer"]["properties"].keys()


def test_metrics_count_requests_and_stages(running: Running, banana: bytes) -> None:
    before = running.metric('fruits_requests_total{endpoint="recognise",status="200"}')
    running.recognise(banana)
    assert running.metric('fruits_requests_total{endpoint="recognise",status="200"}') == before + 1
    text = running.request("GET", "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    for stage in ("queue", "decode", "network", "recognise"):
        assert f'fruits_stage_seconds_count{{stage="{stage}"}}' in text.body.decode()
    assert "fruits_queue_images 0.0" in text.body.decode()
    assert "fruits_queue_capacity 12.0" in text.body.decode()
