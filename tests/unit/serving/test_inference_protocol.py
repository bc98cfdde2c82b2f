"""The Open Inference Protocol."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest

from fruits.serving.limits import Limits
from tests.unit.serving.running import Answer, Running, run_server

MODEL = "/v2/models/fruits"


def tensor(images: list[bytes], **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data} | changes


def infer(running: Running, body: Any, path: str = MODEL, **headers: str) -> Answer:
    return running.request("POST", f"{path}/infer", body if isinstance(body, bytes) else orjson.dumps(body), **headers)


def binary(images: list[bytes], **changes: Any) -> tuple[bytes, str]:
    """Return a body of the binary extension, and the length of its JSON."""
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    described = {
        "name": "image",
        "shape": [len(images)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data)},
    }
    head = orjson.dumps({"inputs": [described | changes]})
    return head + data, str(len(head))


def test_health_and_metadata(running: Running) -> None:
    version = running.service.recogniser.version
    assert running.request("GET", "/v2/health/live").json() == {"live": True}
    assert running.request("GET", "/v2/health/ready").json() == {"ready": True}
    assert running.request("GET", "/v2").json() == {
        "name": "fruits",
        "version": running.service.software,
        "extensions": ["binary_tensor_data"],
    }
    for path in (MODEL, f"{MODEL}/versions/{version}"):
        metadata = running.request("GET", path).json()
        assert (metadata["name"], metadata["versions"]) == ("fruits", [version])
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert running.request("GET", f"{path}/ready").json() == {"name": "fruits", "ready": True}


def test_one_row_for_each_image(running: Running, fruit: dict[str, list[Path]]) -> None:
    images = [fruit["Banana"][0].read_bytes(), fruit["Pear"][0].read_bytes()]
    answer = infer(running, {"id": "seven", "inputs": [tensor(images)]}).json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    single = [running.recognise(image).json() for image in images]
    expected = [one for answer in single for one in answer["predictions"]]
    assert (answer["id"], answer["model_version"]) == ("seven", running.service.recogniser.version)
    assert (outputs["label"]["shape"], outputs["label"]["datatype"]) == ([2, 5], "BYTES")
    assert outputs["label"]["data"] == [one["label"] for one in expected]
    assert outputs["score"]["data"] == [one["score"] for one in expected]
    assert outputs["unknown"] == {"name": "unknown", "datatype": "BOOL", "shape": [2], "data": [False, False]}
    assert outputs["reason"]["data"] == ["", ""]


def test_the_binary_extension_gives_the_same(running: Running, fruit: dict[str, list[Path]]) -> None:
    images = [paths[0].read_bytes() for paths in fruit.values()]
    body, length = binary(images)
    answer = infer(running, body, inference_header_content_length=length)
    assert answer.json() == infer(running, {"inputs": [tensor(images)]}).json()


def test_only_the_requested_outputs(running: Running, banana: bytes) -> None:
    answer = infer(running, {"inputs": [tensor([banana])], "outputs": [{"name": "unknown"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["unknown"]


@pytest.mark.parametrize("path", ["/v2/models/other", f"{MODEL}/versions/0", "/v2/models/other/versions/0"])
def test_another_model_or_version_is_404(running: Running, banana: bytes, path: str) -> None:
    for answer in (running.request("GET", path), running.request("GET", f"{path}/ready"), infer(running, {}, path)):
        assert answer.status == 404
        assert "Allowed: fruits, version" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid"),
        (b"{", "not valid"),
        (b"[" * 100_000, "more than 1,000 values"),
        ({"inputs": [tensor([b"x"], shape=[""] * 1000)]}, "more than 1,000 values"),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "at least 1"),
        ({"inputs": [tensor([b"x"]), tensor([b"x"])]}, "at most 1"),
        ({"inputs": [tensor([b"x"], name="picture")]}, "'picture'"),
        ({"inputs": [tensor([b"x"], datatype="FP32")]}, "'FP32'"),
        ({"inputs": [tensor([b"x"], shape=[1, 1])]}, "shape [1, 1]"),
        ({"inputs": [tensor([b"x"], shape=[0])]}, "greater than or equal to 1"),
        ({"inputs": [tensor([b"x"], shape=[2])]}, "has 1 images; its shape states 2"),
        ({"inputs": [tensor([b"x"] * 9)]}, "9 images in one request: allowed are 8"),
        ({"inputs": [tensor([b"x"], data=["?"])]}, "not base64"),
        ({"inputs": [tensor([b"x"], data=["\u00e9"])]}, "not base64"),
        ({"inputs": [tensor([b"x"], data=None)]}, "neither data nor"),
        ({"inputs": [tensor([b"x"])], "outputs": [{"name": "features"}]}, "Allowed: label, score"),
    ],
)
def test_requests_that_are_not_understood(running: Running, body: Any, message: str) -> None:
    answer = infer(running, body)
    assert answer.status == 400
    assert message in answer.json()["error"]


def test_binary_data_that_does_not_fit_is_400(running: Running) -> None:
    body, length = binary([b"first", b"second"])
    for data, header, message in (
        (body, "x", "allowed are 0 to"),
        (body, "\xb2", "allowed are 0 to"),
        (body, "9" * 5000, "allowed are 0 to"),
        (body, str(len(body) + 1), "allowed are 0 to"),
        (body[:-1], length, "equals the"),
    ):
        answer = infer(running, data, inference_header_content_length=header)
        assert answer.status == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize(("data", "part"), [(b"\x01\0", "a length"), (b"\x09\0\0\0ab", "an image")])
def test_binary_data_that_ends_early_is_400(running: Running, data: bytes, part: str) -> None:
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
            ]
        }
    )
    answer = infer(running, head + data, inference_header_content_length=str(len(head)))
    assert answer.status == 400
    assert f"ends within {part}" in answer.json()["error"]


def test_unusable_images_have_the_statuses_of_v1(running: Running, banana: bytes) -> None:
    for image, status in ((b"text", 415), (banana[:500], 422)):
        answer = infer(running, {"inputs": [tensor([banana, image])]})
        assert answer.status == status
        assert isinstance(answer.json()["error"], str)


def test_more_images_than_the_queue_has_room_for_are_503(folder: Path, banana: bytes) -> None:
    with run_server(folder, limits=Limits(queue_per_worker=2)) as running:
        assert infer(running, {"inputs": [tensor([banana] * 3)]}).status == 503
        assert infer(running, {"inputs": [tensor([banana] * 2)]}).status == 200
