"""S3 as a file system: s3fs, with what a job of many small images needs besides.

- A small file takes one request, and little of the processor. botocore takes a millisecond to make and to read a
  request, so it makes the first one to a bucket, and obstore sends the next where that one went. Whatever is not
  answered with the whole file is asked for once more in the usual way, which knows about retries, redirections and
  errors.
- A listing comes page by page, in the order of S3, and is kept nowhere.
- What goes wrong is an ``OSError`` that says what, and what to do. A ``FileNotFoundError`` or a ``PermissionError`` is
  about the one file; anything else is about S3 as a whole: credentials, the bucket, the region, the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from aiohttp import ClientError as HttpError
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.httpsession import get_cert_path
from fsspec.asyn import sync
from obstore import get_async
from obstore.exceptions import BaseError
from obstore.store import S3Store
from s3fs import S3FileSystem as S3fs

from fruits.storage.s3.errors import storage_error
from fruits.storage.s3.settings import S3Settings

if TYPE_CHECKING:
    from typing import Self

    from obstore.store import ClientConfig, S3Config, S3Credential

__all__ = ["Page", "S3FileSystem", "Stored"]

CONNECTIONS = 64
READ_TIMEOUT, FILE_TIMEOUT = "60s", "10m"  # of one answer: until its next bytes, as botocore waits, and whole
MULTIPART_BYTES = 16 * 2**20  # of a part of an upload; what has less than two of them is one PUT
UPLOADS_AT_ONCE = 4
CHECK_NAME = ".fruits-write-check"
# obstore asks for credentials again when less than 5 minutes are left of them; botocore renews those of a role when
# less than 15 are left.
CREDENTIALS_HOLD = timedelta(minutes=10)

_SCOPE = re.compile(r"^AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/aws4_request,")
_reading: ContextVar[tuple[str, str]] = ContextVar("_reading")  # the bucket and the quoted key of a GET of botocore's
_etag: ContextVar[str] = ContextVar("_etag")  # of the answer to the last GET


class Stored(NamedTuple):
    """A file of a listing.

    Attributes
    ----------
    path : str
        Below the listed folder.
    size : int
        In bytes.
    etag : str
        The MD5 of its content in hexadecimal, if it came with one PUT and KMS does not encrypt it.
    modified : datetime
        When it was stored, by the clock of S3.
    """

    path: str
    size: int
    etag: str
    modified: datetime


class Page(NamedTuple):
    """One page of a listing, in code-point order: paths below the listed folder.

    Attributes
    ----------
    files : list of Stored
        What can be read.
    folders : list of str
        Where a listing does not go down.
    """

    files: list[Stored]
    folders: list[str]


class _Route(NamedTuple):
    """Where the files of a bucket are: the address before the key, the region to sign for or None, and a reader."""

    base: str
    region: str | None
    store: S3Store


class S3FileSystem(S3fs):  # type: ignore[misc]  # s3fs ships no types
    """s3fs on the settings of a job; see the module's docstring for how it differs.

    Make one with :meth:`of`: fsspec keeps one for each set of settings.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: dict[str, _Route] = {}

    @classmethod
    def of(cls, settings: S3Settings) -> Self:
        """Return the file system of these settings; fsspec's configuration adds what they leave out."""
        options: dict[str, Any] = {
            "use_listings_cache": False,
            "max_concurrency": 1,  # with more, s3fs asks for the size of a file before it reads it
            "cache_regions": True,  # ask for the region of a bucket; s3fs does not where an endpoint is given
            "config_kwargs": {
                "retries": {"mode": "standard", "total_max_attempts": 4},
                "max_pool_connections": CONNECTIONS,
            },
        }
        if settings.region:
            options["session_vars"] = {"region": ("region", "AWS_DEFAULT_REGION", settings.region, None)}
        if settings.endpoint:
            options["endpoint_url"] = settings.endpoint
        if settings.anonymous:
            options["anon"] = True
        if settings.requester_pays:
            options["requester_pays"] = True
        if settings.encryption:
            options["s3_additional_kwargs"] = {"ServerSideEncryption": settings.encryption} | (
                {"SSEKMSKeyId": settings.kms_key} if settings.kms_key else {}
            )
        return cls(**options)

    def pages(self, path: str, *, deep: bool = True, count: int = 1000) -> Iterator[Page]:
        """Yield what is below a folder, page by page; nothing where there is nothing.

        Parameters
        ----------
        path : str
            ``bucket`` or ``bucket/folder``.
        deep : bool, default True
            Go down into folders, so that the files come in the order of their whole paths.
        count : int, default 1000
            How many entries a page has at most, which is what S3 gives at most.
        """
        bucket, key, _ = self.split_path(path)
        prefix = key.rstrip("/") + "/" if key else ""
        asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "" if deep else "/", "MaxKeys": count}
        while True:
            answer = sync(self.loop, self._call_s3, "list_objects_v2", **asked)
            yield Page(
                # A key that ends with "/" is the marker of a folder, which some tools make.
                [
                    Stored(file["Key"][len(prefix) :], file["Size"], file["ETag"].strip('"'), file["LastModified"])
                    for file in answer.get("Contents", [])
                    if file["Key"][-1] != "/"
                ],
                [folder["Prefix"][len(prefix) : -1] for folder in answer.get("CommonPrefixes", [])],
            )
            if not answer.get("IsTruncated"):
                return
            asked["ContinuationToken"] = answer["NextContinuationToken"]

    def abort_uploads(self, path: str) -> int:
        """Abort the multipart uploads below a folder that nobody has completed; return how many."""
        bucket, key, _ = self.split_path(path)
        aborted: int = sync(self.loop, self._abort_uploads, bucket, key.rstrip("/") + "/" if key else "")
        return aborted

    def check_writable(self, path: str) -> None:
        """Raise an ``OSError`` where nothing can be written below a folder; nothing is written there to find out."""
        bucket, key, _ = self.split_path(f"{path}/{CHECK_NAME}")
        begun = self.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
        sync(self.loop, self._abort_mpu, bucket, key, begun["UploadId"])

    def has(self, path: str) -> bool:
        """Tell whether there is a file, with one request."""
        bucket, key, _ = self.split_path(path)
        try:
            self.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """Store a file, whole or not at all: with one PUT, or as an upload in parts that is aborted where it fails."""
        self.pipe_file(path, data, chunksize=MULTIPART_BYTES, max_concurrency=UPLOADS_AT_ONCE)

    async def upload(self, file: str, path: str) -> None:
        """Store a local file as :meth:`write` does; to be awaited on the loop of this file system.

        Where it goes up in parts, uploads of the same file that nobody has completed are aborted first.
        """
        if os.path.getsize(file) >= 2 * MULTIPART_BYTES:
            bucket, key, _ = self.split_path(path)
            await self._abort_uploads(bucket, key, only=key)
        await self._put_file(file, path, chunksize=MULTIPART_BYTES, max_concurrency=UPLOADS_AT_ONCE)

    async def read(self, path: str) -> tuple[bytes, str]:
        """Return the bytes of a file and its ETag, of one answer; to be awaited on the loop of this file system."""
        return await self._cat_file(path), _etag.get()

    def is_encrypted_by_kms(self, path: str) -> bool:
        """Tell whether KMS encrypts a file, so that its ETag is no MD5."""
        bucket, key, _ = self.split_path(path)
        return str(self.call_s3("head_object", Bucket=bucket, Key=key).get("ServerSideEncryption")).startswith(
            "aws:kms"
        )

    async def get_s3(self, bucket: str | None = None) -> Any:
        """Return the client of a bucket, which tells here where its requests for files go."""
        client = await super().get_s3(bucket)
        client.meta.events.register("before-send.s3.GetObject", self._learn, unique_id="fruits-route")
        return client

    async def _abort_uploads(self, bucket: str, prefix: str, only: str | None = None) -> int:
        asked = {"Bucket": bucket, "Prefix": prefix}
        aborted = 0
        while True:
            answer = await self._call_s3("list_multipart_uploads", **asked)
            for upload in answer.get("Uploads", []):
                if only in (None, upload["Key"]):
                    await self._abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    aborted += 1
            if not answer.get("IsTruncated"):
                return aborted
            asked |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def _learn(self, request: Any, **_: Any) -> None:
        bucket, key = _reading.get(("", ""))
        base = request.url.removesuffix(f"/{key}")
        words = request.headers.get("Authorization", "")
        authorization = words.decode() if isinstance(words, bytes) else words
        scope = _SCOPE.match(authorization)
        region = scope and scope[1]
        if (
            key
            and base != request.url
            and (scope or not authorization)
            and "X-Amz-S3session-Token" not in request.headers
            and self._routes.get(bucket, ())[:2] != (base, region)
        ):
            self._routes[bucket] = _Route(base, region, self._store(bucket, base, region))

    def _store(self, bucket: str, base: str, region: str | None) -> S3Store:
        settings: S3Config = {
            "aws_endpoint_url_s3": base,  # which wins over every variable of the environment
            "virtual_hosted_style_request": True,  # that is, the bucket is in the address
            "request_payer": self.requester_pays,
            "skip_signature": region is None,
        }
        if region is not None:
            settings["region"] = region
        client: ClientConfig = {"read_timeout": READ_TIMEOUT, "timeout": FILE_TIMEOUT}
        verify = self.client_kwargs.get("verify")
        if verify is None:
            verify = self.session.get_config_variable("ca_bundle") or True
        if base.startswith("http:"):
            client["allow_http"] = True
        elif verify is False:
            client["allow_invalid_certificates"] = True
        else:
            client["root_certificate"] = Path(get_cert_path(verify)).read_bytes()
        return S3Store(
            bucket,
            config=settings,
            client_options=client,
            retry_config={"max_retries": 0},
            credential_provider=None if region is None else self._credentials,
        )

    async def _credentials(self) -> S3Credential:
        """Return the credentials of this moment: those of a role change every hour."""
        if self.key and self.secret:
            held = ReadOnlyCredentials(self.key, self.secret, self.token)
        else:
            found = await self.session.get_credentials()
            if found is None:
                raise NoCredentialsError
            held = await found.get_frozen_credentials()
        return {
            "access_key_id": held.access_key,
            "secret_access_key": held.secret_key,
            "token": held.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_HOLD,
        }

    async def _cat_file(
        self, path: str, version_id: Any = None, start: Any = None, end: Any = None, **others: Any
    ) -> bytes:
        bucket, key, version = self.split_path(path)
        if start is None and end is None and version_id is None and version is None and bucket in self._routes:
            data = await self._read_whole(self._routes[bucket].store, key)
            if data is not None:
                return data
        _reading.set((bucket, quote(key, safe="/-._~")))
        try:
            whole: bytes = await super()._cat_file(path, version_id, start, end, **others)
        except (BotoCoreError, HttpError) as error:  # while the body was read
            raise ConnectionError(f"s3://{path}: {error}") from error
        return whole

    async def _read_whole(self, store: S3Store, key: str) -> bytes | None:
        """Return the bytes of a file, or None where the answer is anything else, or there is none."""
        if key != key.strip("/"):  # for obstore would strip it
            return None
        try:
            answer = await get_async(store, key)
            data = await answer.bytes_async()
        except (BaseError, OSError, ValueError):  # a ValueError is a key that obstore does not take
            return None
        _etag.set((answer.meta["e_tag"] or "").strip('"'))
        return data.to_bytes()

    async def _call_s3(self, method: str, *given: Any, **parameters: Any) -> Any:
        """Make a request; raise failures as the ``OSError`` of :func:`storage_error`."""
        try:
            answer = await super()._call_s3(method, *given, **parameters)
        except (OSError, BotoCoreError) as error:
            bucket, key = parameters.get("Bucket", ""), parameters.get("Key", "")
            endpoint: str | None = self.endpoint_url
            raise storage_error(error, operation=method, bucket=bucket, key=key, endpoint=endpoint) from error
        if method == "get_object":
            _etag.set(answer.get("ETag", "").strip('"'))
        return answer
