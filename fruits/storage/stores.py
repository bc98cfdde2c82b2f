"""Addresses: the file system that each is on, and the path there."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fruits.errors import FruitsError, OutputError
from fruits.storage.s3.settings import S3Settings

__all__ = ["S3_PROTOCOLS", "is_s3", "open_address"]

S3_PROTOCOLS = ("s3", "s3a")
S3_CREDENTIALS = re.compile(r"^(?!arn:)[^/]*:")  # no bucket has a colon in its name


def open_address(address: str, s3: S3Settings | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an address, and the path on it.

    A path without a protocol is local and taken letter by letter, whatever characters it has.

    Parameters
    ----------
    address : str
        A local path or any fsspec address.
    s3 : S3Settings, optional
        How S3 is reached; default: as this process says.

    Raises
    ------
    OutputError
        It is empty, its protocol is unknown or cannot be set up, the package is not installed, or credentials stand in
        an address of S3.
    """
    if not address:
        raise OutputError("an empty address, as of a variable that is not set. Allowed: a path or an address.")
    if "://" not in address:
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(address))
    protocol, _, path = address.partition("://")
    try:
        if protocol in S3_PROTOCOLS:
            if S3_CREDENTIALS.match(path):
                raise OutputError(
                    f"{protocol}://***: credentials stand in this address. Give the bucket alone, and the credentials "
                    "in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or by a profile (AWS_PROFILE)."
                )
            from fruits.storage.s3.file_system import S3FileSystem

            return S3FileSystem.of(s3 or S3Settings.of_this_process()), path.strip("/")
        urlsplit(address)  # HTTP's file system is made of what is no URL, and fails at its first request
        file_system, path = fsspec.core.url_to_fs(address)
    except FruitsError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise OutputError(
            f"{address}: cannot be opened: {str(error) or type(error).__name__}. "
            "Allowed: a local path, or an address that fsspec knows; s3:// needs pip install 'fruits[s3]'."
        ) from error
    return file_system, str(path).rstrip("/")


def is_s3(file_system: Any) -> bool:
    """Tell whether a file system is a :class:`fruits.storage.s3.file_system.S3FileSystem`."""
    return "s3" in file_system.protocol
