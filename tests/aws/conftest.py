"""A simulated AWS account: moto's server on loopback, reached over HTTP like AWS."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiobotocore.client
import botocore.client
import botocore.session
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import amis
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.server import ThreadedMotoServer
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend
from moto.utilities.utils import load_resource

from backends.aws.account import stack
from backends.aws.account.clients import Account
from backends.aws.account.preflight import QUOTAS
from backends.aws.account.tags import MANAGED
from backends.aws.emr.releases import Release
from backends.aws.staging import stage as staging
from backends.aws.staging import wheelhouse
from fruits.storage.s3.settings import S3Settings

REGION = "eu-west-3"
SERVICE_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
SECRET = "hush-hush-never-shown"
IMAGES = ("ami-12c6146b", "ami-760aaa0f")


@pytest.fixture(scope="session", autouse=True)
def _service_models_are_read_once() -> Iterator[None]:
    """Share the service models among boto3 sessions; loading EC2's takes half a second."""
    shared = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda search_path=None: shared)
        yield


@pytest.fixture(scope="session", autouse=True)
def _few_machine_images() -> Iterator[None]:
    """Load the machine images in use alone: moto loads hundreds for each empty account."""

    @cache
    def amazon_linux(path: str) -> list[dict[str, Any]]:
        return [each for each in load_resource(path) if each["name"].startswith("al2023-ami-2023")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amis, "AMIS", [each for each in amis.AMIS if each["ami_id"] in IMAGES])
        patch.setattr(amis, "load_resource", lambda path: [dict(each) for each in amazon_linux(path)])
        yield


@pytest.fixture(autouse=True)
def _moto_lacks_bucket_policies() -> Iterator[None]:
    """Ignore its warning about the one resource of the stack that it does not create."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tried to parse AWS::S3::BucketPolicy", UserWarning)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def account(server: str, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an empty account, isolated from the AWS configuration of the machine."""
    moto_api_backend.reset()
    # Only the managed policy that is used: loading all of them takes moto ten seconds.
    now = "2026-01-01T00:00:00"
    data = {"Path": "/service-role/", "Document": {}, "DefaultVersionId": "v1", "CreateDate": now, "UpdateDate": now}
    policy = AWSManagedPolicy.from_data(SERVICE_POLICY.rpartition("/")[2], DEFAULT_ACCOUNT_ID, "us-east-1", data)
    iam_backends[DEFAULT_ACCOUNT_ID]["aws"].managed_policies[SERVICE_POLICY] = policy
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "FRUITS_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    return Account(REGION)


@pytest.fixture
def quotas(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the EC2 quotas of the account, by code, which moto does not have; those of a small project."""
    values = dict.fromkeys(QUOTAS.values(), 64.0)

    def get(self: object, service_code: str, quota_code: str) -> dict[str, Any]:
        if quota_code not in values:
            raise NoSuchResource
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": values[quota_code]}

    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", get)
    return values


@pytest.fixture
def installed(account: Account, quotas: dict[str, float]) -> Account:
    """Return the account after ``init``."""
    ec2 = account.client("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.create_tags(Resources=[subnet["SubnetId"]], Tags=[{"Key": MANAGED[0], "Value": MANAGED[1]}])
    install(account)
    return account


def install(account: Account, bucket: str = "my-fruits", **more: Any) -> None:
    """Create the stack."""
    vpc = account.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    stack.apply(account, stack.propose(account, bucket, vpc, **{"user": None, "s3": S3Settings(), **more}))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Return the (service, operation) of every request of this process during the test."""
    seen: set[tuple[str, str]] = set()
    for client in (botocore.client.BaseClient, aiobotocore.client.AioBaseClient):

        def recorded(self: Any, operation: str, parameters: object, make: Any = client._make_api_call) -> Any:
            seen.add((self.meta.service_model.service_name, operation))
            return make(self, operation, parameters)

        monkeypatch.setattr(client, "_make_api_call", recorded)
    return seen


@pytest.fixture
def small_wheelhouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stage one small file instead of 200 MB from a package index."""

    def gather(folder: Path, release: Release) -> None:
        folder.mkdir()
        (folder / wheelhouse.REQUIREMENTS).write_text("nothing\n")

    def weights(backbone: object) -> Any:
        class Found:
            path, digest = tmp_path / "weights", "0" * 64

        Found.path.write_bytes(b"weights")
        return Found

    monkeypatch.setattr(staging, "gather", gather)
    monkeypatch.setattr(staging, "find_weights", weights)
