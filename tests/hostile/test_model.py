"""Models from untrusted sources: loaded if valid, else rejected with a message.

The digest in a model detects accidents, not attacks; in these tests it is always correct.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fruits.errors import ModelError
from fruits.model.scaled_pca import ScaledPCA
from tests.hostile.conftest import EXAMPLES, watched

ARRAYS_NAME, JSON_NAME = "scaled_pca.safetensors", "model.json"

Arrays = dict[str, np.ndarray]
WHOLE = ScaledPCA(
    mean=np.arange(6.0),
    scale=np.ones(6),
    components=np.eye(6)[:2],
    eigenvalues=np.arange(6.0, 0, -1),
    rows=9,
    network={"backbone": "MobileNetV2", "engine": "openvino", "weights": "0" * 64},
)


def signed(about: dict[str, Any]) -> bytes:
    """Return model.json with its correct digest."""
    about = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps(about | {"sha256": digest})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    WHOLE.save(str(tmp_path / "model"))
    return tmp_path / "model"


def change(model: Path, **values: object) -> None:
    """Change values in model.json; None removes a key."""
    about = orjson.loads((model / JSON_NAME).read_bytes()) | values
    (model / JSON_NAME).write_bytes(signed({key: value for key, value in about.items() if value is not None}))


def put(model: Path, data: bytes) -> None:
    """Replace the arrays, and update their digest in model.json."""
    (model / ARRAYS_NAME).write_bytes(data)
    change(model, arrays={"file": ARRAYS_NAME, "sha256": hashlib.sha256(data).hexdigest()})


def write_model(model: Path, about: bytes, data: bytes) -> None:
    """Write a model of any two files; if the first is a JSON object, with correct digests."""
    model.mkdir(exist_ok=True)
    (model / ARRAYS_NAME).write_bytes(data)
    try:
        values = orjson.loads(about)
    except orjson.JSONDecodeError:
        values = None
    if isinstance(values, dict):
        about = signed(values | {"arrays": {"file": ARRAYS_NAME, "sha256": hashlib.sha256(data).hexdigest()}})
    (model / JSON_NAME).write_bytes(about)


def arrays(**values: np.ndarray | None) -> bytes:
    given = {name: getattr(WHOLE, name) for name in ("mean", "scale", "components", "eigenvalues")} | values
    return safetensors.numpy.save({name: array for name, array in given.items() if array is not None})


def assert_rejected(model: Path) -> None:
    with pytest.raises(ModelError, match="model"):
        ScaledPCA.load(str(model))


def test_helpers_write_a_valid_model(model: Path) -> None:
    put(model, arrays())
    assert ScaledPCA.load(str(model)).digest() == WHOLE.digest()


@EXAMPLES
@given(name=st.sampled_from([JSON_NAME, ARRAYS_NAME]), data=st.data())
def test_truncated_model_is_rejected(model: Path, name: str, data: st.DataObject) -> None:
    WHOLE.save(str(model))
    path = model / name
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])
    assert_rejected(model)


@EXAMPLES
@given(
    content=st.binary()
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8")),
        lambda values: st.lists(values) | st.dictionaries(st.text(st.characters(codec="utf-8")), values),
        max_leaves=8,
    ).map(orjson.dumps)
)
def test_any_other_json_is_rejected(model: Path, content: bytes) -> None:
    (model / JSON_NAME).write_bytes(content)
    assert_rejected(model)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"NaN", b"1e999", b"9" * 5_000])
def test_malicious_json_is_rejected(model: Path, content: bytes) -> None:
    (model / JSON_NAME).write_bytes(content)
    assert_rejected(model)


@pytest.mark.parametrize(
    "values",
    [
        {"arrays": None},
        {"arrays": "text"},
        {"arrays": {}},
        {"rows": None},
        {"rows": "many"},
        {"rows": -1},
        {"rows": 2.5},
        {"network": None},
        {"network": "MobileNetV2"},
        {"network": {"backbone": 7}},
        {"components": 3},
        {"features": 7},
    ],
    ids=str,
)
def test_invalid_values_in_model_json_are_rejected(model: Path, values: dict[str, object]) -> None:
    change(model, **values)
    assert_rejected(model)


@pytest.mark.parametrize(
    "values",
    [
        {"mean": None},
        {"mean": np.zeros(5)},
        {"scale": np.ones((6, 1))},
        {"scale": -np.ones(6)},
        {"components": np.eye(6)[0]},
        {"components": np.eye(7)[:2]},
        {"components": np.zeros((0, 6))},
        {"components": np.full((2, 6), np.nan)},
        {"eigenvalues": np.full(6, np.inf)},
        {"eigenvalues": np.zeros(1)},
        {"mean": np.zeros(6, np.float32)},
        {"mean": np.zeros(6, np.int64)},
    ],
    ids=lambda values: "-".join(f"{name}-{None if array is None else array.shape}" for name, array in values.items()),
)
def test_arrays_of_wrong_shape_dtype_or_value_are_rejected(model: Path, values: Arrays) -> None:
    put(model, arrays(**values))
    assert_rejected(model)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        header(b"{}", 2**63),
        header(b"{}", 99_000_000),
        header(b'{"mean":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8796093022208]}}'),
        header(b'{"mean":{"dtype":"F64","shape":[18446744073709551615,2],"data_offsets":[0,8]}}') + bytes(8),
        header(b'{"mean":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}') + bytes(7),
        header(b"[" * 10_000),
    ],
    ids=["empty", "no-header", "2^63", "99-million", "terabytes", "overflow", "short", "nested"],
)
def test_stated_sizes_are_checked_before_memory_is_allocated(model: Path, data: bytes) -> None:
    put(model, data)
    assert_rejected(model)


def test_pickle_is_never_loaded(model: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    import pickle

    put(model, pickle.dumps({"mean": Evil()}))
    assert_rejected(model)
    assert not (tmp_path / "ran").exists()


def test_fifo_in_place_of_the_arrays_does_not_hang(model: Path) -> None:
    (model / ARRAYS_NAME).unlink()
    os.mkfifo(model / ARRAYS_NAME)
    with watched(model / ARRAYS_NAME) as hung, pytest.raises((ModelError, OSError)):
        ScaledPCA.load(str(model))
    assert hung == []
