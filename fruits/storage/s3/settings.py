"""Settings of S3: the endpoint, the region, the payer and the encryption, without secrets.

The driver reads them once, into a frozen value that travels with each :class:`fruits.storage.folder.Folder`, so that
workers use the same. Sources:

=================================================== ==============================================================
setting                                             effect
=================================================== ==============================================================
``--s3-endpoint``, ``AWS_ENDPOINT_URL_S3``,         a server other than AWS, such as ``https://minio.example:9000``
``AWS_ENDPOINT_URL``
``AWS_REGION``, ``AWS_DEFAULT_REGION``              the first region to try; that of a bucket on AWS is looked up
``FSSPEC_S3_ANON=true``                             requests are not signed: for public buckets
``FSSPEC_S3_REQUESTER_PAYS=true``                   the account of the credentials pays for the requests
``FSSPEC_S3='{"s3_additional_kwargs":``             new objects are encrypted: ``AES256`` (SSE-S3) or ``aws:kms``
``{"ServerSideEncryption": "aws:kms",``             (SSE-KMS), with the given key or else the account's default key
``"SSEKMSKeyId": "arn:…"}}'``
=================================================== ==============================================================

The last three belong to the configuration of fsspec, which is also read from files (``~/.config/fsspec/*.json``).

**Credentials** are not among them and never leave their machine. Each process uses botocore's default chain:
``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``~/.aws``, web identity, the role of the
container or machine. Workers on this machine inherit the environment; machines of a cluster have a role. A driver that
runs on a cluster receives these settings through :meth:`S3Settings.apply`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.config import conf

from fruits.errors import SettingsError

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
ENDPOINT = re.compile(r"^https?://[^/@?#\s]+/?$")  # without user and password
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Settings of S3; botocore and fsspec's configuration supply those that are None.

    Attributes
    ----------
    endpoint : str, optional
        ``http://`` or ``https://``, a host, and optionally a port.
    region : str, optional
        The first region to try; the region of the process that makes the requests has precedence.
    anonymous : bool, default False
        Send requests unsigned.
    requester_pays : bool, default False
        Accept to pay for the requests.
    encryption : str, optional
        Encryption of new objects: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``.
    kms_key : str, optional
        Id or ARN of the KMS key.

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
            raise SettingsError(
                f"`s3_endpoint` = {self.endpoint}: not the URL of a server. Allowed: http:// or https://, a host and "
                "optionally a port, such as https://minio.example:9000. Give credentials in the environment or in a "
                "profile."
            )
        if self.encryption not in (None, *ENCRYPTIONS):
            raise SettingsError(f"ServerSideEncryption {self.encryption}: unknown. Allowed: {', '.join(ENCRYPTIONS)}.")
        if self.kms_key is not None and not (self.encryption or "").startswith("aws:kms"):
            raise SettingsError(
                f"SSEKMSKeyId {self.kms_key}: a KMS key needs ServerSideEncryption aws:kms or aws:kms:dsse; "
                f"given: {self.encryption}."
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> S3Settings:
        """Return the settings in the environment and in fsspec's configuration."""
        configured: dict[str, Any] = conf.get("s3", {})
        keywords: dict[str, Any] = configured.get("s3_additional_kwargs") or {}
        return cls(
            endpoint=environ.get(ENDPOINT_VARIABLE)
            or environ.get("AWS_ENDPOINT_URL")
            or configured.get("endpoint_url")
            or None,
            region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
            anonymous=bool(configured.get("anon", False)),
            requester_pays=bool(configured.get("requester_pays", False)),
            encryption=keywords.get("ServerSideEncryption"),
            kms_key=keywords.get("SSEKMSKeyId"),
        )

    def encryption_keywords(self) -> dict[str, str]:
        """Return the parameters of a PUT that encrypt the object."""
        keywords = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in keywords.items() if value is not None}

    def apply(self) -> None:
        """Apply the settings to this process, so that :meth:`from_environment` returns them; keep a region set here."""
        if self.endpoint is not None:
            os.environ[ENDPOINT_VARIABLE] = self.endpoint
        if self.region is not None and "AWS_REGION" not in os.environ:
            os.environ.setdefault("AWS_DEFAULT_REGION", self.region)
        conf["s3"] = {
            **conf.get("s3", {}),
            "anon": self.anonymous,
            "requester_pays": self.requester_pays,
            "s3_additional_kwargs": self.encryption_keywords(),
        }
