"""How S3 is reached: the endpoint, the region, who pays and what encrypts; everything but secrets.

What a user sets holds for the driver and for the workers alike. It is read once, on the driver, into one frozen value
that travels with each :class:`fruits.storage.folder.Folder`. Where it comes from:

=================================================== ==============================================================
setting                                             what it does
=================================================== ==============================================================
``--s3-endpoint``, ``AWS_ENDPOINT_URL_S3``,         another server than that of AWS, such as
``AWS_ENDPOINT_URL``                                ``https://minio.example:9000``
``AWS_REGION``, ``AWS_DEFAULT_REGION``              the region to begin with; that of a bucket on AWS is found out
``FSSPEC_S3_ANON=true``                             requests are not signed: for public buckets
``FSSPEC_S3_REQUESTER_PAYS=true``                   the one who asks pays for the requests
``FSSPEC_S3='{"s3_additional_kwargs":``             what is written is encrypted: ``AES256`` (SSE-S3) or ``aws:kms``
``{"ServerSideEncryption": "aws:kms",``             (SSE-KMS) with the key given, or else with the account's own
``"SSEKMSKeyId": "arn:…"}}'``
=================================================== ==============================================================

The last three are fsspec's own configuration, and may stand in its files too (``~/.config/fsspec/*.json``).

**Credentials** are not among them. Each process finds its own by botocore's usual chain (``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``~/.aws``, web identity, the role of the container or of the machine), so
that no secret ever leaves the machine that it was given on. Workers on this machine inherit the environment; those of
a cluster have a role. Where the driver itself runs on a cluster, it is told these settings: :meth:`S3Settings.apply`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsspec.config import conf

from fruits.errors import SettingsError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ENDPOINT_VARIABLE", "S3Settings"]

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
ENDPOINT = re.compile(r"^https?://[^/@?#\s]+/?$")  # no user and password
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """How S3 is reached; what is None is left to botocore and to fsspec's configuration.

    Attributes
    ----------
    endpoint : str, optional
        ``http://`` or ``https://``, a host, and perhaps a port.
    region : str, optional
        Where to begin, unless the process that uses it has a region of its own.
    anonymous : bool, default False
        Do not sign.
    requester_pays : bool, default False
        Say that the one who asks pays.
    encryption : str, optional
        What S3 encrypts new files with: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``.
    kms_key : str, optional
        The key of KMS, by its id or ARN.

    Raises
    ------
    SettingsError
        A value is not allowed.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    requester_pays: bool = False
    encryption: str | None = None
    kms_key: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint is not None and not ENDPOINT.match(self.endpoint):
            shown = re.sub(r"//.*@", "//…@", self.endpoint)
            raise SettingsError(
                f"--s3-endpoint {shown}: not the address of a server. Allowed: http:// or https://, a host and perhaps "
                "a port, such as https://minio.example:9000. Credentials are given in the environment or by a profile."
            )
        if self.encryption not in (None, *ENCRYPTIONS):
            raise SettingsError(
                f"ServerSideEncryption {self.encryption}: not known. Allowed: {', '.join(ENCRYPTIONS)}."
            )
        if self.kms_key is not None and not (self.encryption or "").startswith("aws:kms"):
            raise SettingsError(
                f"SSEKMSKeyId {self.kms_key}: a key of KMS needs ServerSideEncryption aws:kms or aws:kms:dsse; "
                f"given: {self.encryption}."
            )

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return what the environment and fsspec's configuration say."""
        configured: dict[str, Any] = conf.get("s3", {})
        written: dict[str, Any] = configured.get("s3_additional_kwargs") or {}
        return cls(
            endpoint=environ.get(ENDPOINT_VARIABLE)
            or environ.get("AWS_ENDPOINT_URL")
            or configured.get("endpoint_url")
            or None,
            region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
            anonymous=bool(configured.get("anon", False)),
            requester_pays=bool(configured.get("requester_pays", False)),
            encryption=written.get("ServerSideEncryption"),
            kms_key=written.get("SSEKMSKeyId"),
        )

    def apply(self) -> None:
        """Make these what :meth:`of_this_process` returns here from now on, unless a region is set here."""
        if self.endpoint is not None:
            os.environ[ENDPOINT_VARIABLE] = self.endpoint
        if self.region is not None and "AWS_REGION" not in os.environ:
            os.environ.setdefault("AWS_DEFAULT_REGION", self.region)
        written = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key}
        conf["s3"] = {
            **conf.get("s3", {}),
            "anon": self.anonymous,
            "requester_pays": self.requester_pays,
            "s3_additional_kwargs": {name: value for name, value in written.items() if value is not None},
        }
