"""The ImageNet weights of a backbone: located, verified tensor by tensor, and cached.

Sources, in this order: the given address (``--weights``, else ``FRUITS_WEIGHTS``), and no other if one is given; the
cache folder; for MobileNetV2, the network that ships with Fruits; for other backbones, Keras' own cache and Keras'
official download. Reading a file of weights needs the extra ``keras``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

from fruits.errors import SettingsError, WeightsError
from fruits.network.backbones import KERAS_FILES, Backbone
from fruits.network.build import build_in_subprocess, require_keras
from fruits.network.digests import tensor_digest
from fruits.network.download import copy_from_keras_cache, download_from_keras
from fruits.network.packaged import PACKAGED, packaged_tensors
from fruits.network.weight_files import load_cached, save_cached
from fruits.storage.addresses import open_store

__all__ = ["Weights", "cache_folder", "find_weights", "given_address"]

MAX_BYTES = 2**30  # the largest backbone has less than a quarter of it


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of verified weights on the local disk.

    Attributes
    ----------
    path : Path
        Safetensors ``layer/name`` of float32, in the cache folder.
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
    if address:
        return "--weights", address
    address = os.environ.get("FRUITS_WEIGHTS")
    return ("FRUITS_WEIGHTS", address) if address else None


def find_weights(backbone: Backbone, address: str | None = None) -> Weights:
    """Return the verified weights of a backbone, writing them to the cache folder if they are missing there.

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
        The cache folder cannot be written, or Keras is needed and is not installed or fails.
    """
    folder = cache_folder("weights")
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
    for fetch in (copy_from_keras_cache, download_from_keras):
        with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
            source = Path(temporary, "source.weights.h5")
            try:
                return _converted(backbone, source, cached, origin=fetch(backbone, source))
            except WeightsError as error:
                failures.append(str(error))
    places = "\n".join(f"  - {failure}" for failure in failures)
    raise WeightsError(
        f"no source has the weights of {backbone.name}:\n{places}\n"
        f"Give a file with --weights or FRUITS_WEIGHTS, such as Keras' own: {KERAS_FILES}{backbone.weights_file}"
    )


def cache_folder(name: str) -> Path:
    """Return a folder for files that can be regenerated, in ``FRUITS_CACHE`` or the user's cache folder.

    Raises
    ------
    SettingsError
        The folder cannot be created or written.
    """
    root = os.environ.get("FRUITS_CACHE")
    folder = (Path(root).expanduser() if root else user_cache_path("fruits")) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise SettingsError(
            f"the cache folder {folder} cannot be used: {error.strerror or error}. "
            "Set FRUITS_CACHE to a writable folder."
        ) from error
    return folder


def _from_address(backbone: Backbone, setting: str, address: str, folder: Path) -> Weights:
    origin = f"{setting} {address}"
    require_keras(origin)
    with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
        source = Path(temporary, "source.weights.h5")
        try:
            store, path = open_store(address)
            data = store.read(path, limit=MAX_BYTES)
            if not data:
                raise ValueError("the file is empty")
            source.write_bytes(data)
        except Exception as error:  # every fsspec implementation raises classes of another library
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise WeightsError(
                f"{origin} cannot be read: {reason}. Allowed: the address of a file of weights."
            ) from error
        # Named by content, because the file at an address may change.
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        cached = folder / f"{backbone.name}-{content[:16]}.safetensors"
        if cached.exists():
            try:
                return _verified(backbone, cached)
            except WeightsError:
                cached.unlink(missing_ok=True)
        return _converted(backbone, source, cached, origin=origin)


def _from_package(backbone: Backbone, cached: Path) -> Weights:
    """Write the tensors of the packaged network to the cache folder."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as temporary:
        target = Path(temporary, cached.name)
        save_cached(target, packaged_tensors(), f"packaged with fruits {version('fruits')}")
        return _moved(backbone, target, cached)


def _converted(backbone: Backbone, source: Path, cached: Path, *, origin: str) -> Weights:
    """Convert a fetched file, verify the result, and move it into the cache folder."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as temporary:
        target = Path(temporary, cached.name)
        build_in_subprocess("weights", backbone.name, source, target, origin=origin)
        return _moved(backbone, target, cached)


def _moved(backbone: Backbone, target: Path, cached: Path) -> Weights:
    weights = _verified(backbone, target)
    target.replace(cached)
    return Weights(cached, weights.digest, weights.source)


def _verified(backbone: Backbone, path: Path) -> Weights:
    """Return the weights in a file of the cache folder.

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
