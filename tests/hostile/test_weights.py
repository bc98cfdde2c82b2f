"""Files of weights from somebody else: sizes are checked before memory is taken, and nothing of them ever runs."""

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
from fruits.network.build import _read, _refusing
from fruits.network.weights import find_weights
from tests.hostile.conftest import EXAMPLES
from tests.hostile.measure import run_module

MEMORY = 10**9


def model(marker: Path) -> dict[str, object]:
    """Return what Keras stores for a model of ``Lambda(lambda x: …)``, which leaves a marker where it is called."""
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


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught, _refusing("here"):
        _read(path)
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
def test_safetensors_that_claim_more_than_is_there_are_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert refused(file).startswith("here: damaged, or not weights of this network: ")


@pytest.mark.parametrize("chunked", [True, False])
def test_hdf5_that_claims_terabytes_is_refused_before_memory_is_taken(file: Path, chunked: bool) -> None:
    with h5py.File(file, "w") as written:
        options = {"chunks": (2**20,), "compression": "gzip"} if chunked else {}
        written.create_dataset("a/a/kernel:0", (2**44,), "f4", fillvalue=0, **options)
    assert file.stat().st_size < 10_000
    refused(file)


@EXAMPLES
@given(data=st.data())
def test_safetensors_with_changed_bytes(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(save({"a/kernel": np.ones((3, 2), np.float32), "a/bias": np.ones(2, np.float32)}))
    changes = st.dictionaries(st.integers(0, len(whole) - 1), st.integers(0, 255), min_size=1, max_size=6)
    for place, value in data.draw(changes).items():
        whole[place] = value
    path = tmp_path / "changed"
    path.write_bytes(whole)
    try:
        with _refusing("here"):
            found = _read(path)
    except WeightsError:
        return
    assert found is not None
    assert sum(array.nbytes for array in found.values()) <= len(whole)


def test_hdf5_with_changed_bytes_costs_its_process_no_gigabyte(tmp_path: Path) -> None:
    """In a process of its own, as in a job: the library is C, and what it does with damage is not ours to say."""
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
    taken = run_module("tests.hostile.read_weights", *sorted(folder.iterdir()))
    assert len(taken) == 150
    assert max(each.memory for each in taken.values()) < MEMORY
    assert max(each.seconds for each in taken.values()) < 5


# -- code


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there once the Lambda layer was called."""
    return tmp_path / "called"


def lambda_h5(path: Path, marker: Path) -> Path:
    """Write what Keras 2 stores for a model of a Lambda layer."""
    with h5py.File(path, "w") as written:
        written.attrs["model_config"] = json.dumps(model(marker))
        written.attrs["keras_version"] = "2.15.0"
        written.attrs["backend"] = "tensorflow"
        written["model_weights/lambda/lambda/kernel:0"] = np.ones(2, np.float32)
    return path


def lambda_weights(path: Path, marker: Path) -> Path:
    """Write a Lambda layer into the group ``layers``: the one kind of file that Keras itself is given to read."""
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


def test_a_keras_archive_is_refused_unopened(file: Path, marker: Path) -> None:
    assert "it begins with b'PK" in refused(lambda_keras(file, marker))
    assert not marker.exists()


def test_of_a_model_with_a_lambda_only_named_tensors_are_read(file: Path, marker: Path) -> None:
    assert list(_read(lambda_h5(file, marker)) or ()) == [("lambda", "kernel")]
    assert not marker.exists()


def test_keras_itself_makes_no_layer_of_a_file(
    file: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From end to end, in the process that runs Keras."""
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="damaged, or not weights of this network"):
        find_weights(backbone("MobileNetV2"), str(lambda_weights(file, marker)))
    assert not marker.exists()
