"""Keras' official files of ImageNet weights: verified copies, and the download from Keras' host."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

from fruits.errors import WeightsError
from fruits.network.backbones import KERAS_FILES, Backbone

CONNECT_SECONDS = 6
STALL_SECONDS = 20  # timeout of one read of a running transfer


def copy_verified(backbone: Backbone, path: Path, target: Path) -> str:
    """Copy a backbone's official file from the cache to `target`, check its MD5 there, and return its path.

    Raises
    ------
    WeightsError
        The file is missing, or its MD5 differs.
    """
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise WeightsError(f"the cache: {path}: {error.strerror}") from error
    _check_md5(backbone, target, str(path))
    return str(path)


def download_from_keras(backbone: Backbone, target: Path) -> str:
    """Download a backbone's file to `target`, and return its URL.

    Raises
    ------
    WeightsError
        The host cannot be reached, or the MD5 of the file differs.
    """
    url = KERAS_FILES + backbone.weights_file
    answer: Future[HTTPResponse] = Future()

    def connect() -> None:
        try:
            answer.set_result(urlopen(url, timeout=STALL_SECONDS))  # nosec B310  # KERAS_FILES is https
        except Exception as error:  # raised in the waiting thread
            answer.set_exception(error)

    # In a thread: urlopen applies its timeout to each address of the host in turn, and not to the name's lookup.
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
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != (backbone.weights_md5 or md5):
        raise WeightsError(f"{origin}: its MD5 is {md5}, expected {backbone.weights_md5}")
