"""Files of a model: metadata in ``model.json``, arrays in ``scaled_pca.safetensors``.

In an output folder, both names contain the owner: ``model-3f9c2a1b4d5e.json``.

A model may come from someone else. Its sizes are checked before memory is allocated, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import safetensors.numpy

from fruits.errors import ModelError, OutputError
from fruits.storage.commits import last_commit
from fruits.storage.folder import Folder, encode_json

SCHEMA = "fruits.scaled_pca/1"
JSON = re.compile(r"^model(?:-([0-9a-f]{12}))?\.json$")
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


def encode_model(
    model: StoredModel, explained_variance_ratio: npt.NDArray[np.float64], owner: str = ""
) -> dict[str, bytes]:
    """Return the files of a model by name: the arrays first, then the JSON that contains their digest.

    Parameters
    ----------
    model : StoredModel
    explained_variance_ratio : ndarray of shape (k,), float64
    owner : str, optional
        The owner of the output, which the names then contain.
    """
    json_name, arrays_name = _names(owner)
    data = encode_arrays(model.arrays)
    components, features = model.arrays["components"].shape
    metadata: dict[str, object] = {
        "schema": SCHEMA,
        "rows": model.rows,
        "features": features,
        "components": components,
        "explained_variance_ratio": explained_variance_ratio.tolist(),
        "network": dict(model.network),
        "arrays": {"file": arrays_name, "sha256": hashlib.sha256(data).hexdigest()},
    }
    return {arrays_name: data, json_name: encode_json(metadata | {"sha256": _digest(metadata)})}


def read_model(folder: Folder, owner: str | None = None) -> StoredModel:
    """Return the model in a folder, or that of the job that owns an output folder, or of another `owner`.

    Raises
    ------
    ModelError
        The model is missing or corrupt, its schema is unknown, or its parts contradict each other.
    """
    try:
        source, owner = _locate(folder) if owner is None else (folder / "model", owner)
        files = _Files(source, *_names(owner))
        metadata = _read_metadata(files)
        data = source.read(files.arrays, limit=_arrays_bytes(metadata) + HEADER_BYTES)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder.address}: no model found. Give the `out` of a completed fit or run, or its model/ folder."
        ) from error
    except OutputError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise ModelError(f"{folder.address}: the model cannot be read: {error.strerror or error}.") from error
    return StoredModel(_decode_arrays(files, data, metadata), metadata["rows"], metadata["network"])


class _Files(NamedTuple):
    """The folder of a model, and the names of its two files."""

    folder: Folder
    json: str
    arrays: str


def _names(owner: str) -> tuple[str, str]:
    return f"model{owner and '-'}{owner}.json", f"scaled_pca{owner and '-'}{owner}.safetensors"


def _locate(folder: Folder) -> tuple[Folder, str]:
    """Return the folder that contains the files of a model, and the owner in their names."""
    commit = last_commit(folder)
    if commit is not None:
        return folder / "model", commit.owner
    for source in (folder, folder / "model"):
        owners = [match[1] or "" for name in source.names() if (match := JSON.match(name))]
        if len(owners) == 1:
            return source, owners[0]
    raise FileNotFoundError


def _decode_arrays(files: _Files, data: bytes, metadata: Mapping[str, Any]) -> Arrays:
    """Return the arrays, checked against the metadata."""
    if hashlib.sha256(data).hexdigest() != metadata["arrays"]["sha256"]:
        raise _corrupt(files, files.arrays, f"its SHA-256 differs from the one in {files.json}")
    try:
        arrays = safetensors.numpy.load(data)
    except Exception as error:  # SafetensorError, or KeyError for an unknown dtype
        raise _corrupt(files, files.arrays, f"{type(error).__name__}: {error}") from error
    features, components = metadata["features"], metadata["components"]
    shapes = dict.fromkeys(ARRAYS, (features,)) | {"components": (components, features)}
    actual = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if actual != {name: ("float64", shape) for name, shape in shapes.items()}:
        raise _corrupt(files, files.arrays, f"it contains {actual}, but model.json requires float64 of {shapes}")
    if not all(np.isfinite(array).all() for array in arrays.values()) or (arrays["scale"] < 0).any():
        raise _corrupt(files, files.arrays, "it contains non-finite numbers or a negative standard deviation")
    return arrays


def _read_metadata(files: _Files) -> dict[str, Any]:
    """Return the content of ``model.json``, with the types of all required keys checked."""
    try:
        metadata = orjson.loads(files.folder.read(files.json, limit=MAX_JSON_BYTES))
    except orjson.JSONDecodeError as error:
        raise _corrupt(files, files.json, str(error)) from error
    if not isinstance(metadata, dict) or metadata.get("schema") != SCHEMA:
        schema = metadata.get("schema") if isinstance(metadata, dict) else None
        raise ModelError(f"{files.folder.address}: unknown schema {schema!r}. Allowed: {SCHEMA!r}.")
    stated = metadata.pop("sha256", None)
    if stated != (actual := _digest(metadata)):
        raise _corrupt(files, files.json, f"its digest is {actual}, but it states {stated}")
    counts = [metadata.get(name) for name in ("features", "components", "rows")]
    arrays, network = metadata.get("arrays"), metadata.get("network")
    if not (
        all(type(count) is int and count > 0 for count in counts)
        and isinstance(arrays, dict)
        and isinstance(network, dict)
        and all(isinstance(value, str) for value in (arrays.get("sha256"), *network.values()))
        and metadata["components"] <= metadata["features"]
    ):
        raise _corrupt(files, files.json, "features, components, rows, arrays or network is missing or invalid")
    if (size := _arrays_bytes(metadata)) > MAX_ARRAYS_BYTES:
        raise _corrupt(files, files.json, f"it requires arrays of {size:,} bytes; at most {MAX_ARRAYS_BYTES:,}")
    return metadata


def _digest(metadata: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _arrays_bytes(metadata: Mapping[str, int]) -> int:
    return np.dtype(np.float64).itemsize * metadata["features"] * (metadata["components"] + 3)


def _corrupt(files: _Files, name: str, reason: str) -> ModelError:
    return ModelError(f"{files.folder.address}/{name} is corrupt: {reason}. Copy the model again, or fit it again.")
