"""The account: clients of one region, tags, and what AWS refuses, in plain words."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fruits.clusters.clouds import AwsCluster
from fruits.errors import FruitsError, SettingsError
from fruits.storage.s3.errors import service_error

__all__ = [
    "BUCKET_TAG",
    "MANAGED",
    "SETUP",
    "TAG",
    "Account",
    "bucket_name",
    "bucket_of",
    "explained",
    "region_of",
    "split_address",
    "tags_of",
]

TAG = "fruits"  # on everything that is made: the name of the job or of the cluster
SETUP = "init"  # the value of that tag on what stays when no cluster is up
BUCKET_TAG = "fruits-bucket"  # on what a Dask cluster is made of: where it has its secrets
# What AWS' own policy for EMR asks for: https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-managed-iam-policies.html
MANAGED = ("for-use-with-amazon-emr-managed-policies", "true")

# Buckets of old: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html
OLD_REGIONS = {"EU": "eu-west-1"}


@dataclass(slots=True)
class Account:
    """Clients of one region, made when they are first used.

    Parameters
    ----------
    region : str, optional
        Default: what the environment and ``~/.aws/config`` say.
    """

    region: str | None = None
    _clients: dict[str, Any] = field(default_factory=dict)
    _session: Any = None

    @classmethod
    def of(cls, settings: AwsCluster, bucket: str, region: str | None = None) -> Account:
        """Return the account in the region that is asked for, or else in that of the settings, or of the bucket."""
        return cls(region or settings.region or region_of(bucket))

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, such as ``emr``.

        Raises
        ------
        SettingsError
            boto3 is not installed, or no region is known.
        """
        if service not in self._clients:
            if importlib.util.find_spec("boto3") is None:
                raise SettingsError("boto3 is not installed. Install it with: pip install 'fruits[aws]'.")
            import boto3
            from botocore.config import Config

            if self._session is None:
                self._session = boto3.Session(region_name=self.region or os.environ.get("AWS_REGION"))
            if self._session.region_name is None:
                raise SettingsError(
                    "No region of AWS is known. Give one with --region, `region` in cluster.yaml or AWS_REGION."
                )
            retries = Config(retries={"mode": "standard"}, connect_timeout=10)
            self._clients[service] = self._session.client(service, config=retries)
        return self._clients[service]

    def identity(self) -> str:
        """Return the number of the account, which shows that the credentials are good.

        Raises
        ------
        FruitsError
            They are not.
        """
        with explained("ask AWS who you are"):
            return str(self.client("sts").get_caller_identity()["Account"])

    def read(self, address: str) -> bytes | None:
        """Return the content of an object of S3, or None where it is not there."""
        s3 = self.client("s3")
        bucket, key = split_address(address)
        with explained(f"read {address}"):
            try:
                content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except s3.exceptions.NoSuchKey:
                return None
        return content


def region_of(bucket: str) -> str:
    """Return the region of a bucket, which is asked for without knowing any."""
    with explained(f"look up the bucket {bucket}"):
        answer = Account("us-east-1").client("s3").get_bucket_location(Bucket=bucket)
    said = answer.get("LocationConstraint") or "us-east-1"
    return OLD_REGIONS.get(said, said)


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def tags_of(name: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags of everything that belongs to the job or cluster `name`."""
    return {**(more or {}), TAG: name, MANAGED[0]: MANAGED[1]}


def bucket_name(address: str) -> str:
    """Return the bucket of an address.

    Raises
    ------
    SettingsError
        The address is not one of S3.
    """
    scheme, _, rest = address.partition("://")
    name = rest.partition("/")[0]
    if scheme not in ("s3", "s3a") or not name:
        raise SettingsError(f"{address}: not an address of S3. Give one such as s3://my-fruits.")
    return name


def bucket_of(settings: AwsCluster, given: str | None = None, out: str | None = None) -> str:
    """Return the bucket where a cluster's own things lie, without ``s3://``.

    Parameters
    ----------
    settings : AwsCluster
    given, out : str, optional
        As given by ``--bucket``, which wins, and by ``--out``, which is asked last.

    Raises
    ------
    SettingsError
        Nothing names one.
    """
    address = given or settings.bucket or out
    if address is None:
        raise SettingsError(
            "No bucket is known. Give one with --bucket s3://my-fruits, FRUITS_BUCKET, or `bucket` in cluster.yaml."
        )
    return bucket_name(address)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what boto3 raises into an error that says what was tried, what was refused, and what to do.

    Parameters
    ----------
    what : str
        What is tried, as in ``start the cluster``.
    """
    try:
        yield
    except FruitsError:
        raise
    except Exception as error:
        raise service_error(what, error) from error
