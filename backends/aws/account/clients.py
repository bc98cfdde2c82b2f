"""boto3 clients of one region, and S3 addresses."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fruits.clusters.clouds import AwsCluster
from fruits.errors import FruitsError, SettingsError
from fruits.storage.s3.errors import service_error

Notify = Callable[[str], None]  # receives messages for the user

# The location of old buckets: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html
OLD_REGIONS = {"EU": "eu-west-1"}
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
BUCKET = re.compile(r"s3a?://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/|$)")


@dataclass(slots=True)
class Account:
    """An AWS account in one region; each client is created on first use.

    Parameters
    ----------
    region : str, optional
        Default: the region of the environment or of ``~/.aws/config``.
    """

    region: str | None = None
    _clients: dict[str, Any] = field(default_factory=dict)
    _session: Any = None

    @classmethod
    def for_cluster(cls, settings: AwsCluster, bucket: str, region: str | None = None) -> Account:
        """Return the account in `region`, or else in the region of the settings, or else in that of the bucket."""
        return cls(region or settings.region or region_of(bucket))

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, such as ``emr``.

        Raises
        ------
        SettingsError
            boto3 is not installed, or the region is not set.
        """
        if service not in self._clients:
            session = self._connected()
            from botocore.config import Config

            retries = Config(retries={"mode": "standard"}, connect_timeout=10)
            with translated_errors(f"use the AWS service {service}"):
                self._clients[service] = session.client(service, config=retries)
        return self._clients[service]

    @property
    def region_name(self) -> str:
        """The name of the region."""
        return str(self._connected().region_name)

    def _connected(self) -> Any:
        """Return the session; all clients share one, as it may ask for a second factor."""
        if self._session is None:
            if importlib.util.find_spec("boto3") is None:
                raise SettingsError("boto3 is not installed. Install it with: pip install 'fruits[aws]'.")
            import boto3

            with translated_errors("read the AWS configuration"):
                session = boto3.Session(region_name=self.region or os.environ.get("AWS_REGION"))
                if session.region_name is None:
                    raise SettingsError(
                        "The AWS region is not set. Set --region, `region` in cluster.yaml, or AWS_REGION."
                    )
            self._session = session
        return self._session

    def identity(self) -> str:
        """Return the account number; this verifies the credentials.

        Raises
        ------
        FruitsError
            The credentials are missing or not valid.
        """
        with translated_errors("look up the AWS account"):
            return str(self.client("sts").get_caller_identity()["Account"])

    def read(self, address: str) -> bytes | None:
        """Return the content of an S3 object, or None if it does not exist."""
        s3 = self.client("s3")
        bucket, key = split_address(address)
        with translated_errors(f"read {address}"):
            try:
                content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except s3.exceptions.NoSuchKey:
                return None
        return content


def region_of(bucket: str) -> str:
    """Return the region of a bucket."""
    with translated_errors(f"look up the bucket {bucket} (is it of this account?)"):
        # us-east-1 answers for the buckets of every region.
        response = Account("us-east-1").client("s3").get_bucket_location(Bucket=bucket)
    location = response.get("LocationConstraint") or "us-east-1"
    return OLD_REGIONS.get(location, location)


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def bucket_name(address: str) -> str:
    """Return the bucket of an S3 address.

    Raises
    ------
    SettingsError
        The address is not that of a bucket.
    """
    if (found := BUCKET.match(address)) is None:
        raise SettingsError(
            f"{address}: not the address of a bucket. Give one such as s3://my-fruits: 3 to 63 lower-case letters, "
            "digits, hyphens and dots."
        )
    return found[1]


def bucket_of(settings: AwsCluster, option: str | None = None, out: str | None = None) -> str:
    """Return the bucket, without ``s3://``, for the wheels, scripts and logs of a cluster.

    Parameters
    ----------
    settings : AwsCluster
    option, out : str, optional
        The values of ``--bucket``, which takes precedence over the settings, and of ``--out``, which is the fallback.

    Raises
    ------
    SettingsError
        No bucket is set.
    """
    address = option or settings.bucket or out
    if address is None:
        raise SettingsError(
            "The bucket is not set. Set --bucket s3://my-fruits, FRUITS_BUCKET, or `bucket` in cluster.yaml."
        )
    return bucket_name(address)


@contextmanager
def translated_errors(action: str) -> Iterator[None]:
    """Translate the errors of boto3: the action that failed, the cause, and the remedy.

    Parameters
    ----------
    action : str
        The action, such as ``start the cluster``.
    """
    try:
        yield
    except FruitsError:
        raise
    except Exception as error:
        raise service_error(action, error) from error
