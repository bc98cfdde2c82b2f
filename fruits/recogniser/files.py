"""Files of a recogniser: metadata in ``recogniser.json``, arrays in safetensors files that it names.

==================================  ================================================================================
``recogniser.json``                 classes, counts, temperature, thresholds, digests of network, decoding and
                                    sources, and the name, size and SHA-256 of the other files
``scorer-<sha>.safetensors``        what scores images: mean, projection, prototypes
``thumbnails-<sha>.safetensors``    JPEG pictures of the training images nearest the prototypes
``training-<sha>.safetensors``      class moments and the sample, for updates; not read by :func:`read_recogniser`
==================================  ================================================================================

The names of the arrays' files contain their digest, and ``recogniser.json`` is written last: a reader finds the old
recogniser or the new one. A recogniser may come from someone else. Its sizes are checked before memory is allocated,
and nothing in it is executed.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pydantic
import safetensors.numpy

from fruits.errors import ModelError
from fruits.recogniser.methods import Method
from fruits.storage.folder import Folder, encode_json

JSON = "recogniser.json"
SCHEMA = "fruits.recogniser/1"
FILE = re.compile(r"^(?:scorer|thumbnails|training)-[0-9a-f]{12}\.safetensors$")
MAX_JSON_BYTES = 64 * 2**20
MAX_BYTES = 512 * 2**20  # of the scorer, and of the thumbnails
MAX_CLASSES = 100_000
MAX_QUANTILES = 10_000
LARGEST = 1e100  # of the numbers in an array: their squares and products are finite
SHAPES = {  # by array: its type and its shape, in the sizes d features, r directions, p prototypes
    "mean": ("float64", "d"),
    "projection": ("float64", "dr"),
    "prototypes": ("float32", "pr"),
    "lengths": ("float64", "p"),
    "spreads": ("float64", "p"),
    "classes": ("int64", "p"),
}

Arrays = Mapping[str, npt.NDArray[Any]]
Count = Annotated[int, pydantic.Field(ge=0)]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecogniser:
    """The content of the files.

    Attributes
    ----------
    labels : tuple of str
        The labels that are predicted.
    crops : {1, 2}
        Crops of each image.
    network : mapping of str to str
        ``backbone``, ``engine``, ``weights`` and ``decoding``.
    temperature : float
        The divisor of similarities.
    thresholds : mapping
        The fields of :class:`fruits.recogniser.decision.Thresholds`.
    calibration_images : int
        Held-out images that temperature and thresholds were chosen on; if 0, nothing is rejected.
    counts : mapping of str to int
        Training images by label.
    sources : sequence of mappings
        Address, digest, images, rejects, weight and classes of each source.
    neighbours : sequence of (key, label, path)
        The training image nearest each prototype.
    arrays : mapping of str to ndarray
        The fields of :class:`fruits.recogniser.scoring.Scorer`.
    thumbnails : mapping of str to bytes
        JPEG pictures by key.
    training : mapping of str to ndarray
        Class moments and sample; empty if they were not read.
    method : {"prototypes", "linear"}
        How the scorer was fitted.
    version : str
        The first 12 digits of the SHA-256 of the metadata, which contain the digests of the other files.
    """

    labels: tuple[str, ...]
    crops: int
    network: Mapping[str, str]
    temperature: float
    thresholds: Mapping[str, Any]
    calibration_images: int
    counts: Mapping[str, int]
    sources: tuple[Mapping[str, Any], ...]
    neighbours: tuple[tuple[str, str, str], ...]
    arrays: Arrays
    thumbnails: Mapping[str, bytes]
    training: Arrays = field(default_factory=dict)
    method: Method = "prototypes"
    version: str = ""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _File(_Strict):
    file: Annotated[str, pydantic.Field(pattern=FILE.pattern)]
    bytes: Count
    sha256: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]


class _Thresholds(_Strict):
    doubt: Annotated[tuple[float, ...], pydantic.Field(min_length=1, max_length=MAX_QUANTILES)]
    distance: Annotated[tuple[float, ...], pydantic.Field(min_length=1, max_length=MAX_QUANTILES)]
    product: Count


class _Network(_Strict):
    backbone: str
    engine: str
    weights: str
    decoding: Literal["reduced", "full"]


class _Source(_Strict):
    address: str
    digest: str
    images: Count
    rejects: Count
    weight: Annotated[int, pydantic.Field(ge=1)]
    classes: dict[str, str] | None


class _Content(_Strict):
    """The fields of :class:`StoredRecogniser` in ``recogniser.json``, in their order there."""

    method: Method
    labels: Annotated[tuple[str, ...], pydantic.Field(min_length=1, max_length=MAX_CLASSES)]
    crops: Literal[1, 2]
    network: _Network
    temperature: Annotated[float, pydantic.Field(ge=1e-6)]  # similarities divided by it are finite
    thresholds: _Thresholds
    calibration_images: Count
    counts: dict[str, Count]
    sources: tuple[_Source, ...]
    neighbours: tuple[tuple[str, str, str], ...]


class _Metadata(_Content):
    """The content of ``recogniser.json``."""

    schema_: Annotated[Literal["fruits.recogniser/1"], pydantic.Field(alias="schema")]
    scorer: _File
    thumbnails: _File
    training: _File


def write_recogniser(
    folder: Folder, recogniser: StoredRecogniser, *, check: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Write a recogniser, replacing the one in the folder, and return the SHA-256 of its files by name.

    A recogniser that is loaded at the same time is the old one or the new one. `check` is called before each file
    appears or is removed; if it raises, nothing changes any more.
    """
    contents = {
        "scorer": safetensors.numpy.save({name: np.ascontiguousarray(recogniser.arrays[name]) for name in SHAPES}),
        "thumbnails": safetensors.numpy.save(
            {key: np.frombuffer(data, np.uint8) for key, data in recogniser.thumbnails.items()}
        ),
        "training": safetensors.numpy.save(dict(recogniser.training)),
    }
    metadata = {"schema": SCHEMA} | {name: getattr(recogniser, name) for name in _Content.model_fields}
    written = {}
    for kind, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        name = f"{kind}-{digest[:12]}.safetensors"
        metadata[kind] = {"file": name, "bytes": len(data), "sha256": digest}
        written[name] = digest
        folder.write(name, data, check=check)
    encoded = encode_json(metadata | {"sha256": _digest(metadata)})
    folder.write(JSON, encoded, check=check)
    if stale := [name for name in folder.names() if FILE.match(name) and name not in written]:
        check()
        folder.remove_files(stale)
    return written | {JSON: hashlib.sha256(encoded).hexdigest()}


def read_recogniser(folder: Folder, *, training: bool = False) -> StoredRecogniser:
    """Return the recogniser in a folder.

    Parameters
    ----------
    folder : Folder
    training : bool, default False
        Also read the class moments and the sample.

    Raises
    ------
    ModelError
        The recogniser is missing or corrupt, its schema is unknown, or its parts contradict each other.
    """
    try:
        return _read(folder, training)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder.address}: no recogniser found. Give the folder that a completed training wrote."
        ) from error
    except OSError as error:
        raise ModelError(f"{folder.address}: the recogniser cannot be read: {error.strerror or error}.") from error


def _read(folder: Folder, training: bool) -> StoredRecogniser:
    metadata, version = _read_metadata(folder)
    arrays = _read_arrays(folder, metadata.scorer)
    _check_arrays(folder, metadata, arrays)
    return StoredRecogniser(
        **metadata.model_dump(include=set(_Content.model_fields)),
        arrays=arrays,
        thumbnails={key: data.tobytes() for key, data in _read_arrays(folder, metadata.thumbnails).items()},
        training=_read_arrays(folder, metadata.training) if training else {},
        version=version[:12],
    )


def _read_metadata(folder: Folder) -> tuple[_Metadata, str]:
    """Return the content of ``recogniser.json`` and its digest."""
    try:
        value = orjson.loads(folder.read(JSON, limit=MAX_JSON_BYTES))
    except orjson.JSONDecodeError as error:
        raise _corrupt(folder, JSON, str(error)) from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        schema = value.get("schema") if isinstance(value, dict) else None
        raise ModelError(f"{folder.address}: unknown schema {schema!r}. Allowed: {SCHEMA!r}.")
    stated = value.pop("sha256", None)
    if stated != (actual := _digest(value)):
        raise _corrupt(folder, JSON, f"its digest is {actual}, but it states {stated}")
    try:
        metadata = _Metadata.model_validate_json(orjson.dumps(value))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise _corrupt(folder, JSON, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if sorted(set(metadata.labels)) != list(metadata.labels):
        raise _corrupt(folder, JSON, "its labels are not sorted or not unique")
    if any(list(known) != sorted(known) for known in (metadata.thresholds.doubt, metadata.thresholds.distance)):
        raise _corrupt(folder, JSON, "the quantiles of its thresholds are not sorted")
    return metadata, actual


def _read_arrays(folder: Folder, file: _File) -> Arrays:
    if file.bytes > MAX_BYTES and not file.file.startswith("training"):
        raise _corrupt(folder, JSON, f"{file.file} has {file.bytes:,} bytes; at most {MAX_BYTES:,} are allowed")
    try:
        data = folder.read(file.file, limit=file.bytes)
    except FileNotFoundError as error:
        raise _corrupt(folder, file.file, "it is missing") from error
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise _corrupt(folder, file.file, f"it has {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise _corrupt(folder, file.file, f"its SHA-256 differs from the one in {JSON}")
    try:
        return safetensors.numpy.load(data)
    except Exception as error:  # SafetensorError, or KeyError for an unknown dtype
        raise _corrupt(folder, file.file, f"{type(error).__name__}: {error}") from error


def _check_arrays(folder: Folder, metadata: _Metadata, arrays: Arrays) -> None:
    """Raise an error unless the arrays fit each other and the metadata."""
    name = metadata.scorer.file
    if arrays.keys() != SHAPES.keys():
        raise _corrupt(folder, name, f"it contains {sorted(arrays)}, but {sorted(SHAPES)} are required")
    sizes: dict[str, int] = {}
    for key, (dtype, dimensions) in SHAPES.items():
        array = arrays[key]
        expected = tuple(sizes.setdefault(each, size) for each, size in zip(dimensions, array.shape, strict=False))
        if str(array.dtype) != dtype or len(dimensions) != array.ndim or array.shape != expected:
            raise _corrupt(folder, name, f"{key} is {array.dtype} of shape {array.shape}; {dtype} of {sizes} fits")
        if not float(np.abs(array).max(initial=0)) < LARGEST:  # of NaN, too
            raise _corrupt(folder, name, f"{key} contains NaN, or a number of {LARGEST:g} or more")
    if (
        (np.abs(np.linalg.norm(arrays["prototypes"], axis=1) - 1) >= 1e-3).any()
        or (arrays["lengths"] < 0).any()
        or (arrays["spreads"] <= 0).any()
    ):
        raise _corrupt(folder, name, "a direction has not length 1, a length is negative, or a spread not positive")
    classes, labels = arrays["classes"], len(metadata.labels)
    known = classes[classes >= 0]
    if (
        (np.diff(known) < 0).any()
        or not np.array_equal(np.unique(known), np.arange(labels))
        or (classes[len(known) :] != -1).any()
        or len(metadata.neighbours) != len(classes)
    ):
        raise _corrupt(folder, name, f"its prototypes do not belong to the {labels} labels in order")


def _digest(metadata: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _corrupt(folder: Folder, name: str, reason: str) -> ModelError:
    return ModelError(f"{folder.address}/{name} is corrupt: {reason}. Copy the recogniser again, or train it again.")
