"""Hostile files of weights: sizes are checked before memory is allocated, and no code in them runs."""

from __future__ import annotations

import base64
import json
import marshal
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fruits.errors import WeightsError
from fruits.network.backbones import backbone
from fruits.network.weight_files import read_tensors, rejecting_corrupt
from fruits.network.weights import find_weights
from tests.hostile.conftest import EXAMPLES
from tests.hostile.measure import run_module

MEMORY = 10**9


def model(marker: Path) -> dict[str, object]:
    """Return Keras' stored form of a model of ``Lambda(lambda x: …)``; calling the layer creates the marker file."""
    code = eval(f"lambda x: open({str(marker)!r}, 'w').close() or x").__code__
    function = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 2], "name": "input"}},
        {
            "class_name": "Lambda",
            "config": {"name": "lambda", "function": {"class_name": "__lambda__", "config": function}},
        },
    ]
    return {"class_name": "Sequential", "config": {"name": "evil", "layers": layers}}


def rejection(path: Path) -> str:
    with pytest.raises(WeightsError) as caught, rejecting_corrupt("here"):
        read_tensors(path)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


# -- sizes


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_999_999) + b"{}",
        struct.pack("<Q", 2**20) + b"{" * 2**20,
        *(
            struct.pack("<Q", len(text)) + text
            for text in (
                b'{"a/b":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
                b'{"a/b":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,8]}}        ',
                b'{"a/b":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}',
                b'{"a/b":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}',
                b'{"a/b":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
                b'{"a/b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                b'"a/c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}    ',
            )
        ),
    ],
    ids=["2^63", "99-million", "braces", "terabytes", "overflow", "negative", "objects", "backwards", "overlap"],
)
def test_safetensors_with_a_false_header_are_rejected(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert rejection(file).startswith("here: corrupt, or not weights of this network: ")


@pytest.mark.parametrize("chunked", [True, False])
def test_hdf5_that_claims_terabytes_is_rejected_before_memory_is_allocated(file: Path, chunked: bool) -> None:
    with h5py.File(file, "w") as written:
        options = {"chunks": (2**20,), "compression": "gzip"} if chunked else {}
        written.create_dataset("a/a/kernel:0", (2**44,), "f4", fillvalue=0, **options)
    assert file.stat().st_size < 10_000
    rejection(file)


@EXAMPLES
@given(data=st.data())
def test_safetensors_with_changed_bytes_are_rejected_or_stay_within_the_file_size(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = bytearray(save({"a/kernel": np.ones((3, 2), np.float32), "a/bias": np.ones(2, np.float32)}))
    changes = st.dictionaries(st.integers(0, len(whole) - 1), st.integers(0, 255), min_size=1, max_size=6)
    for place, value in data.draw(changes).items():
        whole[place] = value
    path = tmp_path / "changed"
    path.write_bytes(whole)
    try:
        with rejecting_corrupt("here"):
            tensors = read_tensors(path)
    except WeightsError:
        return
    assert tensors is not None
    assert sum(array.nbytes for array in tensors.values()) <= len(whole)


def test_hdf5_with_changed_bytes_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    """In a subprocess, as in a job: the HDF5 library is C code, and a corrupt file can crash it."""
    folder = tmp_path / "files"
    folder.mkdir()
    with h5py.File(tmp_path / "whole.h5", "w") as written:
        for number in range(4):
            written[f"model_weights/a_{number}/a_{number}/kernel:0"] = np.ones((3, 2), np.float32)
            written.create_dataset(
                f"model_weights/a_{number}/a_{number}/bias:0", data=np.ones(8), chunks=(4,), compression="gzip"
            )
        written.attrs["model_config"] = json.dumps({"class_name": "Sequential"})
    whole = (tmp_path / "whole.h5").read_bytes()
    random = np.random.default_rng(5)
    for number in range(150):
        data = bytearray(whole)
        for place in random.integers(8, len(whole), random.integers(1, 6)):
            data[place] = random.choice([0, 1, 0x7F, 0xFF, int(random.integers(256))])
        (folder / f"{number:03d}").write_bytes(data if number % 3 else data[: random.integers(len(data))])
    measured = run_module("tests.hostile.read_weights", *sorted(folder.iterdir()))
    assert len(measured) == 150
    assert max(each.memory for each in measured.values()) < MEMORY
    assert max(each.seconds for each in measured.values()) < 5


# -- code


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return the path of a file that exists once the Lambda layer was called."""
    return tmp_path / "called"


def lambda_h5(path: Path, marker: Path) -> Path:
    """Write a model of a Lambda layer as Keras 2 stores it."""
    with h5py.File(path, "w") as written:
        written.attrs["model_config"] = json.dumps(model(marker))
        written.attrs["keras_version"] = "2.15.0"
        written.attrs["backend"] = "tensorflow"
        written["model_weights/lambda/lambda/kernel:0"] = np.ones(2, np.float32)
    return path


def lambda_weights(path: Path, marker: Path) -> Path:
    """Write a Lambda layer into the group ``layers``: the only format that Keras itself reads."""
    with h5py.File(path, "w") as written:
        written.attrs["model_config"] = json.dumps(model(marker))
        written["layers/lambda/vars/0"] = np.ones(2, np.float32)
        written["layers/lambda"].attrs["config"] = json.dumps(model(marker))
    return path


def lambda_keras(path: Path, marker: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model(marker)))
        archive.writestr("metadata.json", "{}")
        archive.write(lambda_weights(path.with_suffix(".inner"), marker), "model.weights.h5")
    return path


def test_keras_archive_is_rejected_unopened(file: Path, marker: Path) -> None:
    assert "starts with b'PK" in rejection(lambda_keras(file, marker))
    assert not marker.exists()


def test_only_named_tensors_of_a_model_with_a_lambda_are_read(file: Path, marker: Path) -> None:
    assert list(read_tensors(lambda_h5(file, marker)) or ()) == [("lambda", "kernel")]
    assert not marker.exists()


def test_keras_creates_no_layer_from_a_file(
    file: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end, in the subprocess that runs Keras."""
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="corrupt, or not weights of this network"):
        find_weights(backbone("MobileNetV2"), str(lambda_weights(file, marker)))
    assert not marker.exists()
