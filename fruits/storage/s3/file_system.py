"""S3 as a file system of fsspec: s3fs, with fast reads of small files and errors in plain English.

botocore needs a millisecond of CPU for each request. It therefore sends only the first read of a bucket, whose URL and
region are recorded; obstore sends the others directly. A read that obstore does not complete is repeated through
botocore, which implements retries, redirections and errors.
"""

from __future__ import annotations

import math
import re
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from aiohttp import ClientError as HttpError
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError, ReadTimeoutError
from botocore.httpsession import get_cert_path
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from obstore import get_async
from obstore.exceptions import BaseError
from obstore.store import S3Store
from s3fs import S3FileSystem as S3fs

from fruits.storage.prefetch import MAX_BYTES, Range, too_large
from fruits.storage.s3.errors import storage_error
from fruits.storage.s3.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

CONNECTIONS = 64
READ_TIMEOUT, FILE_TIMEOUT = "60s", "10m"  # until the next bytes of a response, as in botocore; until its end
RESPONSE_SECONDS = 180.0  # with all repetitions: for listings and other requests without content
# obstore renews credentials 5 minutes before they expire; botocore renews those of a role 15 minutes before.
CREDENTIALS_LIFETIME = timedelta(minutes=10)

_SCOPE = re.compile(r"^AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/aws4_request,")
_reading: ContextVar[tuple[str, str]] = ContextVar("_reading")  # bucket and quoted key of a read through botocore
_etag: ContextVar[str] = ContextVar("_etag")  # of the last response to a read
_most: ContextVar[float] = ContextVar("_most", default=math.inf)  # bytes of an object that a read accepts


class _Route(NamedTuple):
    """The URL before the keys of a bucket, the region of signatures (None: unsigned), and obstore's client."""

    base: str
    region: str | None
    client: S3Store


def _ignore_checksum_of_range(params: dict[str, Any], **_: Any) -> None:
    """Do not verify a range with a checksum: some servers send that of the whole object."""
    if "Range" in params["headers"]:
        params["headers"].pop("x-amz-checksum-mode", None)
        params["context"].get("checksum", {}).pop("response_algorithms", None)


class S3FileSystem(S3fs):  # type: ignore[misc]  # s3fs ships no types
    """s3fs with the settings of a job; see the module's docstring for the differences.

    Create it with :meth:`from_settings`: fsspec caches one instance for each set of settings.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: dict[str, _Route] = {}

    @classmethod
    def from_settings(cls, settings: S3Settings) -> S3FileSystem:
        """Return the file system of these settings, completed by fsspec's configuration."""
        options: dict[str, Any] = {
            "use_listings_cache": False,
            "max_concurrency": 1,  # with more, s3fs requests the size of a file before its content
            "cache_regions": True,  # request the region of a bucket, which s3fs omits when an endpoint is given
            "config_kwargs": {
                "retries": {"mode": "standard", "total_max_attempts": 4},
                "max_pool_connections": CONNECTIONS,
            },
        }
        if settings.region:
            options["session_vars"] = {"region": ("region", "AWS_DEFAULT_REGION", settings.region, None)}
        given = {
            "endpoint_url": settings.endpoint,
            "anon": settings.anonymous,
            "requester_pays": settings.requester_pays,
            "s3_additional_kwargs": settings.encryption_keywords(),
        }
        return cls(**options, **{name: value for name, value in given.items() if value})

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Return the bucket and the key of ``bucket/key``; s3fs would cut a key at ``?versionId=``."""
        bucket, key = self._find_bucket_key(path.removeprefix("s3://"))
        return bucket, key, None

    def call_s3(self, method: str, **parameters: Any) -> Any:
        """Make a request and wait; s3fs' own method would bypass the translation of errors.

        s3fs and botocore repeat a request without a response 20 times, each for a minute. Here it fails earlier.
        """
        try:
            return sync(self.loop, self._call_s3, method, timeout=RESPONSE_SECONDS, **parameters)
        except FSTimeoutError as error:
            bucket, key = parameters["Bucket"], parameters.get("Key", "")
            silent = ReadTimeoutError(endpoint_url=self.endpoint_url or "of AWS")
            raise storage_error(silent, operation=method, bucket=bucket, key=key, endpoint=self.endpoint_url) from error

    async def read_with_etag(self, path: str, most: float | None = None) -> tuple[bytes, str]:
        """Return the content and the ETag of one response. Await it on the loop of this file system.

        An object of more than `most` bytes, by default of more than 400 MB, is not read; its error is EFBIG. A manifest
        may not state the size of an image.
        """
        _most.set(MAX_BYTES if most is None else most)
        return await self._cat_file(path), _etag.get()

    async def read_range_with_etag(self, place: Range) -> tuple[bytes, str]:
        """Return the bytes of a range, and the ETag of the object. Await it on the loop of this file system.

        Through botocore: a range has many images, and obstore refuses the answers of servers that send ranges as 200.
        """
        return await self._cat_file(place.path, start=place.start, end=place.start + place.size), _etag.get()

    async def get_s3(self, bucket: str | None = None) -> Any:
        """Return the client of a bucket, with a hook that records the route of its reads, and one for ranges."""
        client = await super().get_s3(bucket)
        client.meta.events.register("before-call.s3.GetObject", _ignore_checksum_of_range, unique_id="fruits-range")
        client.meta.events.register("before-send.s3.GetObject", self._record_route, unique_id="fruits-route")
        return client

    def _record_route(self, request: Any, **_: Any) -> None:
        bucket, key = _reading.get(("", ""))
        base = request.url.removesuffix(f"/{key}")
        header = request.headers.get("Authorization", "")
        authorization = header.decode() if isinstance(header, bytes) else header
        scope = _SCOPE.match(authorization)
        region = scope and scope[1]
        if (
            key
            and base != request.url
            and (scope or not authorization)
            and "X-Amz-S3session-Token" not in request.headers
            and self._routes.get(bucket, ())[:2] != (base, region)
        ):
            self._routes[bucket] = _Route(base, region, self._client(bucket, base, region))

    def _client(self, bucket: str, base: str, region: str | None) -> S3Store:
        settings: S3Config = {
            "aws_endpoint_url_s3": base,  # overrides every variable of the environment
            "virtual_hosted_style_request": True,  # the base URL includes the bucket
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
        """Return the current credentials; those of a role change every hour."""
        if self.key and self.secret:
            current = ReadOnlyCredentials(self.key, self.secret, self.token)
        else:
            provider = await self.session.get_credentials()
            if provider is None:
                raise NoCredentialsError
            current = await provider.get_frozen_credentials()
        return {
            "access_key_id": current.access_key,
            "secret_access_key": current.secret_key,
            "token": current.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LIFETIME,
        }

    async def _cat_file(
        self, path: str, version_id: Any = None, start: Any = None, end: Any = None, **others: Any
    ) -> bytes:
        bucket, key, _ = self.split_path(path)
        if start is None and end is None and version_id is None and bucket in self._routes:
            data = await self._read_directly(self._routes[bucket].client, key)
            if data is not None:
                return data
        _reading.set((bucket, quote(key, safe="/-._~")))
        try:
            content: bytes = await super()._cat_file(path, version_id, start, end, **others)
        except (BotoCoreError, HttpError) as error:  # while reading the body
            raise ConnectionError(f"s3://{path}: {error}") from error
        return content

    async def _read_directly(self, client: S3Store, key: str) -> bytes | None:
        """Return the content of an object, or None for every other response and for none."""
        if not key or key != key.strip("/"):  # obstore would list the bucket, or strip it
            return None
        try:
            response = await get_async(client, key)
            if response.meta["size"] > _most.get():
                return None  # botocore's read raises the error
            data = await response.bytes_async()
        except (BaseError, OSError, ValueError):  # ValueError: obstore does not support the key
            return None
        _etag.set((response.meta["e_tag"] or "").strip('"'))
        return data.to_bytes()

    async def _call_s3(self, method: str, *given: Any, **parameters: Any) -> Any:
        """Make a request; raise failures as the ``OSError`` of :func:`storage_error`."""
        try:
            response = await super()._call_s3(method, *given, **parameters)
        except (OSError, BotoCoreError) as error:
            bucket, key = parameters.get("Bucket", ""), parameters.get("Key", "")
            endpoint: str | None = self.endpoint_url
            raise storage_error(error, operation=method, bucket=bucket, key=key, endpoint=endpoint) from error
        if method == "get_object":
            _etag.set(response.get("ETag", "").strip('"'))
            if response["ContentLength"] > (most := _most.get()):
                response["Body"].close()
                raise too_large(f"s3://{parameters['Bucket']}/{parameters['Key']}", int(most))
        return response
