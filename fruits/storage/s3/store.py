"""S3 as a store: listings in pages, multipart uploads, and checks of permissions before a job starts.

Import it on demand: it imports botocore.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from fsspec.asyn import sync

from fruits.storage.generic import FsspecStore
from fruits.storage.prefetch import File, Range, places, read_ahead
from fruits.storage.s3.file_system import S3FileSystem
from fruits.storage.stores import FileInfo

PAGE = 1000  # keys: the most that S3 returns
PART_BYTES = 16 * 2**20  # of a multipart upload; less than two parts are one PUT
PARTS_AT_ONCE = 4
CONFLICTS = 10
CHECK_NAME = ".fruits-write-check"


class _Page(NamedTuple):
    """Files and folders of one response, in code-point order, by path below the listed folder."""

    files: list[FileInfo]
    folders: list[str]


class S3ObjectStore(FsspecStore):
    """The buckets that one set of :class:`S3Settings` reaches. Paths are ``bucket/key``."""

    file_system: S3FileSystem

    def info(self, path: str) -> FileInfo:
        """Return the size and the ETag of an object."""
        found = super().info(path)
        return found._replace(version=found.version.strip('"'))

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of an object with one request, which ends early if the object is larger than `limit`."""
        most = math.inf if limit is None else limit
        data: bytes = sync(self.file_system.loop, self.file_system.read_with_etag, path, most)[0]
        return data

    def fetch(self, files: Iterable[File], *, ahead: int, inside: str = "") -> Iterator[bytes | OSError]:
        """Yield the content of each file or its error, with `ahead` requests at once."""
        return read_ahead(self.file_system.read_with_etag, files, loop=self.file_system.loop, ahead=ahead)

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int) -> Iterator[bytes | OSError]:
        """Yield the bytes of each range or its error, with `ahead` requests at once."""
        read = self.file_system.read_range_with_etag
        return read_ahead(read, places(ranges), loop=self.file_system.loop, ahead=ahead)

    def _upload(self, file: str, path: str) -> None:
        self.file_system.put_file(file, path, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def write(self, path: str, data: bytes, *, check: Callable[[], None] | None = None) -> None:
        """Store an object with one PUT, or with a multipart upload that is aborted if it fails."""
        if check is not None:
            check()
        self.file_system.pipe_file(path, data, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def create(self, path: str, data: bytes) -> bool:
        """Store an object unless its key exists, with one conditional PUT."""
        for _ in range(CONFLICTS):
            try:
                self.file_system.pipe_file(path, data, mode="create")
            except FileExistsError:
                if self.is_file(path):
                    return False
                # A request for the same key was under way at the same time, and may have failed: 409.
            else:
                return True
        raise OSError(errno.EBUSY, "other requests write it at the same time", path)

    def is_file(self, path: str) -> bool:
        """Return whether an object has this key."""
        bucket, key = self._split(path)
        if not key:
            return False
        try:
            self.file_system.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        """Return the names of the objects and folders in a folder, sorted; empty if there are none."""
        pages = self._pages(path, deep=False)
        return sorted(name for page in pages for name in (*page.folders, *(file.path for file in page.files)))

    def files(self, path: str) -> list[FileInfo]:
        """Return the objects directly in a folder, sorted by name; empty if there are none."""
        return [file for page in self._pages(path, deep=False) for file in page.files]

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all objects below a folder, page by page; S3 has no links, and cannot leave out folders."""
        empty, last = True, ""
        for page in self._pages(path, deep=True):
            for file in page.files:
                if file.path <= last:
                    raise OSError(
                        f"this storage does not list keys in order ({file.path} comes after {last}). S3 does, except "
                        "in directory buckets: use a general purpose bucket"
                    )
                last, empty = file.path, False
            yield page.files
        if empty and self.file_system.isfile(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if empty:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def remove_files(self, paths: Sequence[str]) -> None:
        """Remove objects of one bucket, a thousand with each request."""
        for start in range(0, len(paths), PAGE):
            places = [self._split(path) for path in paths[start : start + PAGE]]
            bucket, removed = places[0][0], {"Objects": [{"Key": key} for _, key in places], "Quiet": True}
            response = self.file_system.call_s3("delete_objects", Bucket=bucket, Delete=removed)
            for failure in response.get("Errors", []):  # botocore repeats whole requests alone, such as this one
                self.file_system.call_s3("delete_object", Bucket=bucket, Key=failure["Key"])

    def abort_uploads(self, path: str, chosen: Callable[[str], bool]) -> None:
        """Abort the unfinished multipart uploads below a folder whose names below it are chosen."""
        bucket, prefix = self._prefix(path)
        parameters: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        while True:
            response = self.file_system.call_s3("list_multipart_uploads", **parameters)
            for upload in response.get("Uploads", []):
                if chosen(upload["Key"][len(prefix) :]):
                    self._abort(bucket, upload["Key"], upload["UploadId"])
            if not response.get("IsTruncated"):
                return
            parameters |= {"KeyMarker": response["NextKeyMarker"], "UploadIdMarker": response["NextUploadIdMarker"]}

    def check_writable(self, path: str) -> None:
        """Raise an ``OSError`` unless a folder can be listed and an upload to it started; it is aborted."""
        next(self._pages(path, deep=True, count=1))
        bucket, key = self._split(f"{path}/{CHECK_NAME}")
        upload = self.file_system.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        self._abort(bucket, key, upload["UploadId"])

    def check_readable(self, paths: Sequence[str]) -> None:
        """Raise the ``PermissionError`` of the first file if none of them may be read."""
        heads = self.read_heads(paths, 1)
        errors = [head for head in heads if isinstance(head, PermissionError)]
        if errors and len(errors) == len(heads):
            raise errors[0]

    def _split(self, path: str) -> tuple[str, str]:
        bucket, key, _ = self.file_system.split_path(path)
        return bucket, key

    def _prefix(self, path: str) -> tuple[str, str]:
        bucket, key = self._split(path)
        return bucket, key.rstrip("/") + "/" if key else ""

    def _abort(self, bucket: str, key: str, upload: str) -> None:
        with suppress(FileNotFoundError):  # a request whose answer was lost has aborted it
            sync(self.file_system.loop, self.file_system._abort_mpu, bucket, key, upload)

    def _pages(self, path: str, *, deep: bool, count: int = PAGE) -> Iterator[_Page]:
        """Yield the pages of a folder; `deep` includes its subfolders and orders files by their whole keys."""
        bucket, prefix = self._prefix(path)
        parameters = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "" if deep else "/", "MaxKeys": count}
        while True:
            response = self.file_system.call_s3("list_objects_v2", **parameters)
            yield _Page(
                # Some tools create markers of folders: keys that end with "/".
                [
                    _file_info(entry, len(prefix), deep)
                    for entry in response.get("Contents", [])
                    if entry["Key"][-1] != "/"
                ],
                [folder["Prefix"][len(prefix) : -1] for folder in response.get("CommonPrefixes", [])],
            )
            if not response.get("IsTruncated"):
                return
            if (token := response.get("NextContinuationToken")) in (None, parameters.get("ContinuationToken")):
                raise OSError(f"s3://{path} cannot be listed: this storage does not continue its truncated list")
            parameters["ContinuationToken"] = token


def _file_info(entry: dict[str, Any], start: int, deep: bool) -> FileInfo:
    modified = 0.0 if deep else entry["LastModified"].timestamp()  # walks do not use it
    return FileInfo(entry["Key"][start:], entry["Size"], entry.get("ETag", "").strip('"'), modified)
