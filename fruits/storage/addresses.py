"""Addresses: the only place that selects the store of a path or URL."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from fruits.errors import FruitsError, OutputError
from fruits.storage.local import LocalStore
from fruits.storage.s3.settings import S3Settings
from fruits.storage.stores import END_OF_URL, Store
from fruits.text import NOT_IN_NAMES, brief, canonical, native, printable, without_secrets

S3_PROTOCOLS = ("s3", "s3a")
S3_CREDENTIALS = re.compile(r"^(?!arn:)[^/]*:")  # bucket names have no colon

PASSWORD = re.compile(r"^[\w+.-]+://[^/:@]*:[^/]*@")


def is_s3(address: str) -> bool:
    """Return whether an address is on S3."""
    return address.partition("://")[0] in S3_PROTOCOLS


def is_http(address: str) -> bool:
    """Return whether an address is that of a web server, in which names are encoded."""
    return address.startswith(("http://", "https://"))


def name_in(address: str, name: str) -> str:
    """Return a part of an address as the name of a file, which is encoded in URLs of web servers."""
    return unquote(name, errors="surrogateescape") if is_http(address) else name


def split_chain(address: str) -> tuple[str, str, str]:
    """Split the first link off an address such as ``zip://folder::s3://bucket/images.zip``; URLs can contain ``::``."""
    return address.partition("::") if "://" in address and not is_http(address) else (address, "", "")


def absolute(address: str, s3: S3Settings | None = None) -> str:
    """Return an address as it is valid in every process: complete, with an absolute path if it is local.

    Raises
    ------
    OutputError
        As for :func:`open_store`.
    """
    store, path = open_store(address, s3)
    if isinstance(store, LocalStore):
        return path
    if is_s3(address):
        return f"s3://{path}"
    first, separator, others = split_chain(address)
    protocol, _, path = first.partition("://")
    others, last_separator, last = others.rpartition("::")
    if last and "://" not in last:
        last = _local(last)
    return f"{protocol}://{path.rstrip('/')}{separator}{others}{last_separator}{last}"


def _local(path: str) -> str:
    return canonical(os.path.abspath(os.path.expanduser(native(path))))


def open_store(address: str, s3: S3Settings | None = None) -> tuple[Store, str]:
    """Return the store of an address, and the path on it.

    An address without a protocol is a local path and used literally, whatever characters it has.

    Parameters
    ----------
    address : str
        A local path or any fsspec URL.
    s3 : S3Settings, optional
        Settings of S3; default: those of this process.

    Raises
    ------
    OutputError
        The address is empty or contains credentials, its protocol is unknown or cannot be set up, or a package is not
        installed.
    """
    if not address:
        raise OutputError("empty path (unset shell variable?). Allowed: a local path or a URL.")
    if NOT_IN_NAMES.search(address):
        raise OutputError(f"{printable(brief(address))}: a NUL or half a surrogate pair is in no name. Remove it.")
    if "://" not in address:
        return LocalStore(), _local(address)
    try:
        return _open_s3(address, s3) if is_s3(address) else _open_url(address)
    except FruitsError:
        raise
    except Exception as error:  # implementations of fsspec raise exceptions of many libraries
        remedy = "Allowed: a local path, or a URL that fsspec supports"
        if isinstance(error, ImportError) and (package := "'fruits[s3]'" if is_s3(address) else error.name):
            remedy = f"Install it with: pip install {package}"
        cause = (str(error) or type(error).__name__).rstrip(".")
        raise OutputError(f"{address}: cannot be opened: {cause}. {remedy}.") from error


def _open_s3(address: str, settings: S3Settings | None) -> tuple[Store, str]:
    protocol, _, path = address.partition("://")
    if S3_CREDENTIALS.match(path):
        raise OutputError(
            f"{protocol}://***: the address contains credentials. Give only the bucket, and the credentials in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in a profile (AWS_PROFILE)."
        )
    if not path.strip("/"):
        raise OutputError(f"{address}: the bucket is missing. Give it, such as {protocol}://bucket/folder.")
    from fruits.storage.s3.file_system import S3FileSystem  # on demand: imports botocore
    from fruits.storage.s3.store import S3ObjectStore

    file_system = S3FileSystem.from_settings(settings or S3Settings.from_environment())
    return S3ObjectStore(file_system), path.strip("/")


def _open_url(address: str) -> tuple[Store, str]:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.zip import ZipFileSystem

    from fruits.storage.generic import FsspecStore, ZipStore

    for link in address.split("::"):
        if PASSWORD.match(link):
            raise OutputError(
                f"{without_secrets(address)}: the address contains a password. Leave it out, and give it in the "
                "environment, such as FSSPEC_FTP_USERNAME and FSSPEC_FTP_PASSWORD for ftp://."
            )
    if "://" not in split_chain(address)[0]:
        raise OutputError(
            f"{address}: its first part is no URL. Give the folder in the archive, such as zip://folder::archive.zip, "
            "or zip://:: for all of it."
        )
    if is_http(address):
        from fruits.storage.http import HttpStore

        return HttpStore(fsspec.filesystem("http", encoded=True)), address.rstrip("/") + END_OF_URL
    file_system, path = fsspec.core.url_to_fs(address)
    if isinstance(file_system, LocalFileSystem):
        return LocalStore(), str(path).rstrip("/")
    store = ZipStore if isinstance(file_system, ZipFileSystem) else FsspecStore
    return store(file_system), str(path).rstrip("/")
