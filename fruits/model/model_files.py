"""Files of a model: metadata in ``model.json``, arrays in ``scaled_pca.safetensors``.

A model may come from someone else. Its sizes are checked before memory is allocated, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import safetensors.numpy

from fruits.errors import ModelError
from fruits.storage.folder import Folder

__all__ = ["ARRAYS", "ARRAYS_NAME", "JSON_NAME", "StoredModel", "encode_arrays", "read_model", "write_model"]

SCHEMA = "fruits.scaled_pca/1"
JSON_NAME = "model.json"
ARRAYS_NAME = "scaled_pca.safetensors"
ARRAYS = ("mean", "scale", "components", "eigenvalues")
MAX_JSON_BYTES = 16 * 2**20
MAX_ARRAYS_BYTES = 256 * 2**20  # 5,700 features with all their components
HEADER_BYTES = 2**16  # the most that a safetensors file has before its arrays

Arrays = Mapping[str, npt.NDArray[np.float64]]


class StoredModel(NamedTuple):
    """The content of the files: arrays by name, the number of training rows, and the network."""

    arrays: Arrays
    rows: int
    network: Mapping[str, str]


def encode_arrays(arrays: Arrays) -> bytes:
    """Return arrays in the safetensors format."""
    return safetensors.numpy.save(dict(arrays))


def write_model(out: Folder, model: StoredModel, explained_variance_ratio: npt.NDArray[np.float64]) -> None:
    """Write the files of a model: the arrays first, then the JSON that contains their digest."""
    data = encode_arrays(model.arrays)
    components, features = model.arrays["components"].shape
    metadata: dict[str, object] = {
        "schema": SCHEMA,
        "rows": model.rows,
        "features": features,
        "components": components,
        "explained_variance_ratio": explained_variance_ratio.tolist(),
        "network": dict(model.network),
        "arrays": {"file": ARRAYS_NAME, "sha256": hashlib.sha256(data).hexdigest()},
    }
    out.write(ARRAYS_NAME, data)
    out.write_json(JSON_NAME, metadata | {"sha256": _digest(metadata)})


def read_model(folder: Folder) -> StoredModel:
    """Return the model in a folder, or in its subfolder ``model``.

    Raises
    ------
    ModelError
        The model is missing or corrupt, its schema is unknown, or its parts contradict each other.
    """
    source = folder
    if not source.exists(JSON_NAME) and source.exists(f"model/{JSON_NAME}"):
        source = source / "model"
    try:
        metadata = _read_metadata(source)
        data = source.read(ARRAYS_NAME, limit=_arrays_bytes(metadata) + HEADER_BYTES)
    except FileNotFoundError as error:
        raise ModelError(
            f"{source.address}: no model found ({JSON_NAME} and {ARRAYS_NAME} are required). "
            "Give the --out of a completed fit or run, or its model/ folder."
        ) from error
    except OSError as error:
        raise ModelError(f"{source.address}: the model cannot be read: {error.strerror or error}.") from error
    return StoredModel(_decode_arrays(source, data, metadata), metadata["rows"], metadata["network"])


def _decode_arrays(source: Folder, data: bytes, metadata: Mapping[str, Any]) -> Arrays:
    """Return the arrays, checked against the metadata."""
    if hashlib.sha256(data).hexdigest() != metadata["arrays"]["sha256"]:
        raise _corrupt(source, ARRAYS_NAME, "its SHA-256 differs from the one in model.json")
    try:
        arrays = safetensors.numpy.load(data)
    except Exception as error:  # SafetensorError, or KeyError for an unknown dtype
        raise _corrupt(source, ARRAYS_NAME, f"{type(error).__name__}: {error}") from error
    features, components = metadata["features"], metadata["components"]
    shapes = dict.fromkeys(ARRAYS, (features,)) | {"components": (components, features)}
    actual = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if actual != {name: ("float64", shape) for name, shape in shapes.items()}:
        raise _corrupt(source, ARRAYS_NAME, f"it contains {actual}, but model.json requires float64 of {shapes}")
    if not all(np.isfinite(array).all() for array in arrays.values()) or (arrays["scale"] < 0).any():
        raise _corrupt(source, ARRAYS_NAME, "it contains non-finite numbers or a negative standard deviation")
    return arrays


def _read_metadata(source: Folder) -> dict[str, Any]:
    """Return the content of ``model.json``, with the types of all required keys checked."""
    try:
        metadata = orjson.loads(source.read(JSON_NAME, limit=MAX_JSON_BYTES))
    except orjson.JSONDecodeError as error:
        raise _corrupt(source, JSON_NAME, str(error)) from error
    if not isinstance(metadata, dict) or metadata.get("schema") != SCHEMA:
        schema = metadata.get("schema") if isinstance(metadata, dict) else None
        raise ModelError(f"{source.address}: unknown schema {schema!r}. Allowed: {SCHEMA!r}.")
    stated = metadata.pop("sha256", None)
    if stated != (actual := _digest(metadata)):
        raise _corrupt(source, JSON_NAME, f"its digest is {actual}, but it states {stated}")
    counts = [metadata.get(name) for name in ("features", "components", "rows")]
    arrays, network = metadata.get("arrays"), metadata.get("network")
    if not (
        all(type(count) is int and count > 0 for count in counts)
        and isinstance(arrays, dict)
        and isinstance(network, dict)
        and all(isinstance(value, str) for value in (arrays.get("sha256"), *network.values()))
        and metadata["components"] <= metadata["features"]
    ):
        raise _corrupt(source, JSON_NAME, "features, components, rows, arrays or network is missing or invalid")
    if (size := _arrays_bytes(metadata)) > MAX_ARRAYS_BYTES:
        raise _corrupt(source, JSON_NAME, f"it requires arrays of {size:,} bytes; at most {MAX_ARRAYS_BYTES:,}")
    return metadata


def _digest(metadata: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _arrays_bytes(metadata: Mapping[str, int]) -> int:
    return np.dtype(np.float64).itemsize * metadata["features"] * (metadata["components"] + 3)


def _corrupt(source: Folder, name: str, reason: str) -> ModelError:
    return ModelError(f"{source.address}/{name} is corrupt: {reason}. Copy the model again, or fit it again.")
