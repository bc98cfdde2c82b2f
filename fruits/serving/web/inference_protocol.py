"""The Open Inference Protocol, version 2, over HTTP: health, metadata and inference.

The model has one input, ``image``: encoded files as ``BYTES``, in JSON as base64, or as they are in the binary
extension (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and its
``binary_tensor_data``).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fruits.recogniser.recogniser import Recogniser, Recognition
from fruits.serving.web import errors
from fruits.serving.web.service import MODEL, Service

JSON_LENGTH = "inference-header-content-length"  # with it, the body is JSON followed by binary data
BINARY = "binary_data_size"
MAX_VALUES = 1000  # of the JSON: 20 MB of them would take 2 GB once parsed; base64 contains none of these characters
MAX_DIGITS = 12  # of a length
SHOWN_ERRORS = 3
OUTPUTS: dict[str, tuple[str, Callable[[Recognition], Sequence[Any]]]] = {  # name → data type, values of one image
    "label": ("BYTES", lambda answer: [label for label, _ in answer.top]),
    "score": ("FP32", lambda answer: [score for _, score in answer.top]),
    "unknown": ("BOOL", lambda answer: [answer.prediction is None]),
    "reason": ("BYTES", lambda answer: [answer.reason or ""]),
}


class _Input(BaseModel):
    name: str
    shape: list[Annotated[int, Field(ge=1)]]
    datatype: str
    data: list[str] | None = None
    parameters: dict[str, Any] = {}


class _Output(BaseModel):
    name: str


class _InferRequest(BaseModel):
    id: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: list[_Output] = []


def protocol_routes(service: Service) -> list[Route]:
    """Return the routes of the protocol."""

    def answer(value: object) -> Response:
        return Response(orjson.dumps(value), media_type="application/json")

    def checked(request: Request) -> Recogniser:
        """Return the current recogniser; 404 if the path names another model or version."""
        recogniser = service.recogniser
        name, version = request.path_params["model"], request.path_params.get("version", recogniser.version)
        if (name, version) != (MODEL, recogniser.version):
            raise errors.not_found(f"Model {name}, version {version}", f"{MODEL}, version {recogniser.version}")
        return recogniser

    async def server_metadata(request: Request) -> Response:
        return answer({"name": "fruits", "version": service.software, "extensions": ["binary_tensor_data"]})

    async def server_live(request: Request) -> Response:
        return answer({"live": True})

    async def server_ready(request: Request) -> Response:
        return answer({"ready": True})  # the server accepts connections only once its workers are loaded

    async def model_ready(request: Request) -> Response:
        checked(request)
        return answer({"name": MODEL, "ready": True})

    async def model_metadata(request: Request) -> Response:
        recogniser = checked(request)
        return answer(
            {
                "name": MODEL,
                "versions": [recogniser.version],
                "platform": "fruits_openvino",
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": name, "datatype": datatype, "shape": [-1, -1] if name in ("label", "score") else [-1]}
                    for name, (datatype, _) in OUTPUTS.items()
                ],
            }
        )

    async def infer(request: Request) -> Response:
        recogniser = checked(request)
        async with service.uploads.body(request) as body:
            call, images = _parse(body, request.headers.get(JSON_LENGTH), service.limits.images)
            wanted = [output.name for output in call.outputs] or list(OUTPUTS)
            if unknown := [name for name in wanted if name not in OUTPUTS]:
                raise errors.bad_request(f"Outputs {unknown[:SHOWN_ERRORS]}: unknown. Allowed: {', '.join(OUTPUTS)}.")
            answers = await service.recognise(recogniser, images)
        value: dict[str, Any] = {"model_name": MODEL, "model_version": recogniser.version}
        if call.id is not None:
            value["id"] = call.id
        value["outputs"] = [_output(name, answers) for name in wanted]
        return answer(value)

    model = "/v2/models/{model}"
    return [
        Route("/v2", server_metadata),
        Route("/v2/health/live", server_live),
        Route("/v2/health/ready", server_ready),
        *(
            route
            for path in (model, model + "/versions/{version}")
            for route in (
                Route(path, model_metadata),
                Route(path + "/ready", model_ready),
                Route(path + "/infer", infer, methods=["POST"]),
            )
        ),
    ]


def _output(name: str, answers: Sequence[Recognition]) -> dict[str, Any]:
    """Return one output tensor: a row for each image."""
    datatype, values = OUTPUTS[name]
    rows = [values(answer) for answer in answers]
    shape = [len(rows), len(rows[0])] if name in ("label", "score") else [len(rows)]
    return {"name": name, "datatype": datatype, "shape": shape, "data": [value for row in rows for value in row]}


def _parse(body: bytes, json_length: str | None, limit: int) -> tuple[_InferRequest, list[bytes]]:
    """Return a request and its images."""
    if json_length is None:
        length = len(body)
    else:
        is_number = json_length.isdecimal() and len(json_length) <= MAX_DIGITS
        length = int(json_length) if is_number else -1
    if not 0 <= length <= len(body):
        raise errors.bad_request(f"{JSON_LENGTH} {json_length!r:.50}: allowed are 0 to the length of the body.")
    if sum(body.count(character, 0, length) for character in (b"[", b"{", b",")) > MAX_VALUES:
        raise errors.bad_request(f"The request is not valid: more than {MAX_VALUES:,} values.")
    try:
        call = _InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        shown = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:SHOWN_ERRORS])
        raise errors.bad_request(f"The request is not valid: {shown}.") from error
    (tensor,) = call.inputs
    if (tensor.name, tensor.datatype, len(tensor.shape)) != ("image", "BYTES", 1):
        raise errors.bad_request(
            f"Input {tensor.name!r:.50}, {tensor.datatype!r:.20}, shape {tensor.shape[:8]}: "
            "allowed is 'image', 'BYTES', shape [number of images]."
        )
    (count,) = tensor.shape
    if count > limit:
        raise errors.bad_request(f"{count} images in one request: allowed are {limit}.")
    images = _binary(body[length:], tensor) if tensor.data is None else _base64(tensor.data)
    if len(images) != count:
        raise errors.bad_request(f"Input 'image' has {len(images)} images; its shape states {count}.")
    return call, images


def _base64(data: Sequence[str]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise errors.bad_request(f"Input 'image' is not base64: {error}.") from error


def _binary(data: bytes, tensor: _Input) -> list[bytes]:
    """Return the elements of binary data: each follows its length, a little-endian uint32."""
    if tensor.parameters.get(BINARY) != len(data):
        raise errors.bad_request(
            f"Input 'image' has neither data nor a {BINARY} that equals the {len(data)} bytes after the JSON."
        )
    images, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise errors.bad_request("The binary data of 'image' ends within a length.")
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            raise errors.bad_request("The binary data of 'image' ends within an image.")
        images.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return images
