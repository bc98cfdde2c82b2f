from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fruits.errors import SettingsError, WeightsError
from fruits.network import build, weights
from fruits.network.backbones import BACKBONES, Backbone
from fruits.network.digests import tensor_digest
from fruits.network.weight_files import load_cached, save_cached
from fruits.network.weights import Weights, find_weights

MOBILENET, RESNET = BACKBONES["MobileNetV2"], BACKBONES["ResNet50"]
DIGEST = "f0ec0e77572672762b6e25a7a328329f39af83d18fb2e8f9456cab670187746a"


def test_real_weights_are_the_verified_tensors(real: Weights) -> None:
    tensors, _ = load_cached(real.path)

    assert real.digest == DIGEST
    assert len(tensors) == 260
    assert len({layer for layer, _ in tensors}) == 104
    assert sum(tensor.size for tensor in tensors.values()) == 2_257_984
    assert tensor_digest(tensors) == DIGEST


# The sources, in their order


def test_cached_weights_are_used_without_a_subprocess(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cached(cached, load_cached(cached)[0], "a test")
    monkeypatch.setattr(weights, "build_in_subprocess", None)
    monkeypatch.setattr(weights, "packaged_tensors", None)

    assert find_weights(MOBILENET) == Weights(cached, DIGEST, "a test")


def test_weights_of_the_packaged_network_need_no_keras(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    monkeypatch.setattr(weights, "build_in_subprocess", None)

    expected = Weights(empty / "MobileNetV2.safetensors", DIGEST, f"packaged with fruits {version('fruits')}")
    assert find_weights(MOBILENET) == expected
    assert find_weights(MOBILENET) == expected
    assert list(empty.iterdir()) == [expected.path]


def test_other_sources_without_keras_are_an_error_that_names_the_extra(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"weights of ResNet50 needs Keras.*pip install 'fruits\[keras\]'"):
        find_weights(RESNET)
    with pytest.raises(SettingsError, match=r"`weights` s3://b/k needs Keras.*pip install 'fruits\[keras\]'"):
        find_weights(MOBILENET, "s3://b/k")
    monkeypatch.setenv("FRUITS_WEIGHTS", "here.h5")
    with pytest.raises(SettingsError, match=r"FRUITS_WEIGHTS here\.h5 needs Keras.*pip install 'fruits\[keras\]'"):
        find_weights(MOBILENET)


OFFICIAL = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
KNOWN = dataclasses.replace(RESNET, weights_md5=hashlib.md5(b"official").hexdigest())


def test_download_is_kept_and_verified_again_when_it_is_used(
    empty: Path, tmp_path: Path, converted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(backbone: Backbone, target: Path) -> str:
        target.write_bytes(b"official")
        return "a download"

    monkeypatch.setattr(weights, "download_from_keras", download)
    assert find_weights(KNOWN).source == "a download"
    monkeypatch.setattr(weights, "download_from_keras", None)
    shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # as in a new process
    assert find_weights(KNOWN).source == str(empty / OFFICIAL)
    assert [path.name for path in empty.iterdir()] == [OFFICIAL]
    assert converted == [b"official", b"official"]

    (empty / OFFICIAL).write_bytes(b"altered!")
    monkeypatch.setattr(weights, "download_from_keras", download)
    shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # as in a new process
    assert find_weights(KNOWN).source == "a download"
    assert (empty / OFFICIAL).read_bytes() == b"official"


def test_altered_tensors_in_the_cache_are_not_used(
    empty: Path, tmp_path: Path, real: Weights, converted: list[bytes]
) -> None:
    """Their digest could be recomputed; only a digest in the code can verify them."""
    empty.mkdir(parents=True)
    tensors = {key: tensor + np.float32(1) for key, tensor in load_cached(real.path)[0].items()}
    for name in ("ResNet50.safetensors", f"ResNet50-{hashlib.sha256(b'given').hexdigest()[:16]}.safetensors"):
        save_cached(empty / name, tensors, "an attacker")
    (empty / OFFICIAL).write_bytes(b"official")
    (empty / "given.h5").write_bytes(b"given")
    shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # as in a new process
    assert find_weights(KNOWN).digest == DIGEST
    assert find_weights(KNOWN, str(empty / "given.h5")).digest == DIGEST
    assert converted == [b"official", b"given"]


@pytest.mark.parametrize("known", [MOBILENET, KNOWN])
@pytest.mark.usefixtures("converted")
def test_complete_cache_may_be_read_only(
    known: Backbone, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cached.parent / OFFICIAL).write_bytes(b"official")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != cached.parent and access(path, mode))
    shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # as in a new process
    assert find_weights(known).digest == DIGEST
    for path in cached.parent.iterdir():
        path.unlink()
    shutil.rmtree(tmp_path / "temporary", ignore_errors=True)  # as in a new process
    with pytest.raises(SettingsError, match=r"cannot be used: no permission to write. Set FRUITS_CACHE"):
        find_weights(known)


def test_error_lists_every_source_and_its_failure(empty: Path) -> None:
    empty.mkdir(parents=True)
    (empty / "ResNet50.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")

    with pytest.raises(WeightsError) as caught:
        find_weights(RESNET)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no source has the weights of ResNet50:"
    assert [line.split(":")[0] for line in lines[1:-1]] == ["  - the cache", "  - Keras' download"]
    assert "Connection refused" in lines[2]
    assert "`weights` or FRUITS_WEIGHTS" in lines[-1]


# The address


@pytest.mark.parametrize("place", ["option", "environment"])
def test_address_takes_precedence_over_the_cache(
    place: str, cached: Path, tmp_path: Path, converted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given #1 %.h5").write_bytes(b"given")
    address = str(tmp_path / "given #1 %.h5")
    monkeypatch.setenv("FRUITS_WEIGHTS", address if place == "environment" else str(tmp_path / "not this"))

    found = find_weights(MOBILENET, None if place == "environment" else address)

    assert found.source == address
    assert converted == [b"given"]


@pytest.mark.usefixtures("empty")
def test_address_is_converted_once_per_content(converted: list[bytes]) -> None:
    file_system = fsspec.filesystem("memory")
    file_system.pipe("/bucket/weights.h5", b"one")
    one = find_weights(MOBILENET, "memory://bucket/weights.h5")
    assert find_weights(MOBILENET, "memory://bucket/weights.h5") == one
    file_system.pipe("/bucket/weights.h5", b"two")
    two = find_weights(MOBILENET, "memory://bucket/weights.h5")
    file_system.rm("/bucket", recursive=True)

    assert converted == [b"one", b"two"]
    assert one.path != two.path


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.h5", None, "missing.h5 cannot be read: No such file"),
        ("empty.h5", b"", "the file is empty"),
        ("large.h5", b"12345", "more than 4 bytes"),
        ("", None, "Is a directory"),
    ],
)
def test_address_of_no_file_of_weights_is_rejected(
    name: str, content: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    if content is not None:
        (folder / name).write_bytes(content)
    monkeypatch.setattr(weights, "MAX_BYTES", 4 if name == "large.h5" else 2**30)
    with pytest.raises(WeightsError, match=words):
        find_weights(MOBILENET, str(folder / name))


@pytest.mark.usefixtures("empty")
def test_address_of_an_unknown_protocol_is_rejected() -> None:
    with pytest.raises(WeightsError, match=r"`weights` nowhere://x cannot be read: .*Protocol not known"):
        find_weights(MOBILENET, "nowhere://x")


# Verification and the cache


def _altered(real: Weights, monkeypatch: pytest.MonkeyPatch) -> str:
    tensors = dict(load_cached(real.path)[0])
    tensors["Conv1", "kernel"] = tensors["Conv1", "kernel"] + np.float32(1e-3)

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        save_cached(target, tensors, origin)

    monkeypatch.setattr(weights, "build_in_subprocess", convert)
    return tensor_digest(tensors)


def test_other_tensors_are_rejected_with_both_digests(
    real: Weights, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _altered(real, monkeypatch)
    (tmp_path / "given.h5").write_bytes(b"given")

    with pytest.raises(WeightsError, match=f"given.h5.*digest of the tensors is {digest}, expected {DIGEST}"):
        find_weights(MOBILENET, str(tmp_path / "given.h5"))
    assert list(empty.iterdir()) == []


@pytest.mark.usefixtures("empty")
def test_digest_is_recorded_if_the_backbone_has_none(
    real: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _altered(real, monkeypatch)
    (tmp_path / "given.h5").write_bytes(b"given")

    free = dataclasses.replace(MOBILENET, weights_digest=None)
    assert find_weights(free, str(tmp_path / "given.h5")).digest == digest


def test_corrupt_cache_file_is_replaced(cached: Path) -> None:
    whole = cached.read_bytes()
    for data in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:1000], b""):
        cached.write_bytes(data)
        assert find_weights(MOBILENET).digest == DIGEST
        assert tensor_digest(load_cached(cached)[0]) == DIGEST


def test_two_processes_may_fetch_at_once(
    real: Weights, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given.h5").write_bytes(b"given")
    together = threading.Barrier(2, timeout=60)

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        together.wait()
        shutil.copyfile(real.path, target)
        together.wait()

    monkeypatch.setattr(weights, "build_in_subprocess", convert)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: find_weights(MOBILENET, str(tmp_path / "given.h5")), range(2))

    assert one == two
    assert list(empty.iterdir()) == [one.path]


def test_unusable_cache_folder_is_an_error_that_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"cannot be used: .*Set FRUITS_CACHE to a writable folder"):
        find_weights(MOBILENET)
