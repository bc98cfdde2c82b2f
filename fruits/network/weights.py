"""The ImageNet weights of a backbone: located, verified tensor by tensor, and cached.

Sources, in this order: the given address (``--weights``, else ``FRUITS_WEIGHTS``), and no other if one is given; the
cache folder; for MobileNetV2, the network that ships with Fruits; for other backbones, Keras' official download.
Reading a file of weights needs the extra ``keras``.

The cache folder is never trusted: whoever can write to it could exchange its content. It contains what can be verified
by a digest in the code, tensors of MobileNetV2 and official files of the other backbones. Their tensors are converted
again by each process, into a temporary folder. A complete cache folder may be read-only.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

from fruits.errors import SettingsError, WeightsError
from fruits.network.backbones import KERAS_FILES, Backbone
from fruits.network.build import build_in_subprocess, require_keras
from fruits.network.digests import tensor_digest
from fruits.network.download import copy_verified, download_from_keras
from fruits.network.packaged import PACKAGED, packaged_tensors
from fruits.network.weight_files import load_cached, save_cached
from fruits.storage.addresses import open_store
from fruits.text import without_secrets

MAX_BYTES = 2**30  # the largest backbone has less than a quarter of it


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of verified weights on the local disk.

    Attributes
    ----------
    path : Path
        Safetensors ``layer/name`` of float32, in the cache folder or in a temporary folder of this process.
    digest : str
        Their :func:`fruits.network.digests.tensor_digest`.
    source : str
        Their first origin: an address, a file, or the packaged network.
    """

    path: Path
    digest: str
    source: str


def given_address(address: str | None) -> tuple[str, str] | None:
    """Return the name of the setting that gives an address of weights, and the address; None if neither is set."""
    if address is not None:
        return "`weights`", address
    address = os.environ.get("FRUITS_WEIGHTS")
    return ("FRUITS_WEIGHTS", address) if address else None


def find_weights(backbone: Backbone, address: str | None = None) -> Weights:
    """Return the verified weights of a backbone; files that are missing in the cache folder are written to it.

    Parameters
    ----------
    backbone : Backbone
        The network of the weights.
    address : str, optional
        fsspec address of a file: the safetensors of the cache folder, Keras' ``.h5`` with or without top,
        ``.weights.h5``, or TF-Slim's MobileNetV2 in HDF5. Default: ``FRUITS_WEIGHTS``, if it is set.

    Raises
    ------
    WeightsError
        The address does not contain the weights of this backbone, or no source has them: the message lists every
        source and its error.
    SettingsError
        A file must be written to the cache folder and cannot be, or Keras is needed and is not installed or fails.
    """
    folder = cache_folder("weights") if backbone.weights_digest else _temporary_folder()
    if given := given_address(address):
        return _from_address(backbone, *given, folder)
    cached = folder / f"{backbone.name}.safetensors"
    failures = []
    if cached.exists():
        try:
            return _verified(backbone, cached)
        except WeightsError as error:
            failures.append(f"the cache: {cached}: {error}")
    if backbone.name == PACKAGED:
        return _from_package(backbone, cached)
    require_keras(f"reading the weights of {backbone.name}")
    for fetch in (_copy_from_cache, _download):
        with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
            source = Path(temporary, "source.weights.h5")
            try:
                return _converted(backbone, source, cached, origin=fetch(backbone, source))
            except WeightsError as error:
                failures.append(str(error))
    places = "\n".join(f"  - {failure}" for failure in failures)
    raise WeightsError(
        f"no source has the weights of {backbone.name}:\n{places}\n"
        f"Give a file with `weights` or FRUITS_WEIGHTS, such as Keras' own: {KERAS_FILES}{backbone.weights_file}"
    )


def cache_folder(name: str) -> Path:
    """Return a folder for files that can be regenerated, in ``FRUITS_CACHE`` or the user's cache folder."""
    root = os.environ.get("FRUITS_CACHE")
    return (Path(root).expanduser() if root else user_cache_path("fruits")) / name


@cache
def _temporary_folder() -> Path:
    """Return a folder of this process alone, which is removed at its end."""
    folder = tempfile.mkdtemp(prefix="fruits-weights-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and move it there at the end.

    Raises
    ------
    SettingsError
        The folder of the file cannot be created or written.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise SettingsError(
            f"the cache folder {folder} cannot be used: {error.strerror or error}. "
            "Set FRUITS_CACHE to a writable folder."
        ) from error
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        target = Path(temporary, path.name)
        yield target
        target.replace(path)


def _official_file(backbone: Backbone) -> Path:
    """Return the path of a backbone's official file in the cache folder."""
    return cache_folder("weights") / backbone.weights_file.rpartition("/")[2]


def _copy_from_cache(backbone: Backbone, target: Path) -> str:
    return copy_verified(backbone, _official_file(backbone), target)


def _download(backbone: Backbone, target: Path) -> str:
    """Download a backbone's official file to the cache folder and copy it to `target`."""
    with _replacing(_official_file(backbone)) as file:
        origin = download_from_keras(backbone, file)
        shutil.copyfile(file, target)
    return origin


def _from_address(backbone: Backbone, setting: str, address: str, folder: Path) -> Weights:
    origin = without_secrets(address)  # stored, and an argument of a process
    require_keras(f"{setting} {origin}")
    with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
        source = Path(temporary, "source.weights.h5")
        try:
            store, path = open_store(address)
            data = store.read(path, limit=MAX_BYTES)
            if not data:
                raise ValueError("the file is empty")
            source.write_bytes(data)
        except Exception as error:  # every fsspec implementation raises classes of another library
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
            raise WeightsError(
                f"{setting} {origin} cannot be read: {reason}. Allowed: the address of a file of weights."
            ) from error
        # Named by content, because the file at an address may change.
        content = hashlib.sha256(data).hexdigest()
        cached = folder / f"{backbone.name}-{content[:16]}.safetensors"
        if cached.exists():
            try:
                return _verified(backbone, cached)
            except WeightsError:
                pass  # corrupt; replaced now
        return _converted(backbone, source, cached, origin=origin)


def _from_package(backbone: Backbone, cached: Path) -> Weights:
    """Write the tensors of the packaged network to the cache folder."""
    with _replacing(cached) as target:
        save_cached(target, packaged_tensors(), f"packaged with fruits {version('fruits')}")
        weights = _verified(backbone, target)
    return replace(weights, path=cached)


def _converted(backbone: Backbone, source: Path, cached: Path, *, origin: str) -> Weights:
    """Convert a fetched file, and verify the result."""
    with _replacing(cached) as target:
        build_in_subprocess("weights", backbone.name, source, target, origin=origin)
        weights = _verified(backbone, target)
    return replace(weights, path=cached)


def _verified(backbone: Backbone, path: Path) -> Weights:
    """Return the weights in a file that :func:`save_cached` wrote.

    Raises
    ------
    WeightsError
        The file is corrupt, or the digest of its tensors is not that of the backbone.
    """
    tensors, origin = load_cached(path)
    digest = tensor_digest(tensors)
    if digest != (backbone.weights_digest or digest):
        raise WeightsError(
            f"{origin}: these are not the ImageNet weights of {backbone.name}: the digest of the tensors is "
            f"{digest}, expected {backbone.weights_digest}."
        )
    return Weights(path, digest, origin)
