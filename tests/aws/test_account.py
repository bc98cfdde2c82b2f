"""The prerequisites in the account, the policies, and the messages of AWS errors; against moto's server."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from backends.aws.account import setup
from backends.aws.account.clients import Account, region_of, translated_errors
from backends.aws.account.policies import (
    NODE_ROLE,
    SERVICE_ROLE,
    bucket_policy,
    node_policy,
    service_policy,
    user_policy,
)
from backends.aws.account.tags import MANAGED, TAG
from backends.aws.account.vpc import GROUPS, find_vpc
from fruits.clusters.clouds import EmrCluster
from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.settings import S3Settings

EMR = EmrCluster(backend="spark", cloud="emr")
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"


def make_all(account: Account, bucket: str = "my-fruits", **more: Any) -> list[setup.Prerequisite]:
    created = []
    for needed in setup.prerequisites(account, EMR, bucket, **more):
        needed.create()
        created.append(needed)
    return created


def raising(error: Exception) -> Callable[..., None]:
    def call(*given: object, **more: object) -> None:
        raise error

    return call


@pytest.fixture
def by_tls(account: Account) -> Account:
    """Return the account with an endpoint that appears to use TLS."""
    account.client("s3").meta._endpoint_url = "https://s3.eu-west-3.amazonaws.com"
    return account


def test_init_creates_a_private_encrypted_tls_only_bucket(by_tls: Account) -> None:
    make_all(by_tls)
    s3 = by_tls.client("s3")
    assert s3.get_bucket_location(Bucket="my-fruits")["LocationConstraint"] == "eu-west-3"
    blocked = s3.get_public_access_block(Bucket="my-fruits")["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert len(blocked) == 4
    (rule,) = s3.get_bucket_encryption(Bucket="my-fruits")["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert json.loads(s3.get_bucket_policy(Bucket="my-fruits")["Policy"]) == bucket_policy("my-fruits")
    (swept,) = s3.get_bucket_lifecycle_configuration(Bucket="my-fruits")["Rules"]
    assert swept["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1


def test_policies_allow_the_kms_key(account: Account) -> None:
    s3 = S3Settings(encryption="aws:kms", kms_key=KEY)
    make_all(account, s3=s3)
    there = account.client("s3").get_bucket_encryption(Bucket="my-fruits")["ServerSideEncryptionConfiguration"]
    assert there["Rules"][0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    kept = account.client("iam").get_role_policy(RoleName=NODE_ROLE, PolicyName="bucket-my-fruits")["PolicyDocument"]
    for policy in (kept, user_policy("my-fruits", "111122223333", "eu-west-3", KEY)):
        (allowed,) = (each for each in policy["Statement"] if each["Resource"] == KEY)
        assert allowed["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    with pytest.raises(SettingsError, match="alias/fruits: not an ARN"):
        make_all(account, s3=S3Settings(encryption="aws:kms", kms_key="alias/fruits"))


def test_a_second_init_finds_every_prerequisite(account: Account) -> None:
    first = make_all(account, also_read=["others"])
    assert not any(needed.exists for needed in first)
    iam = account.client("iam")
    kept = iam.get_role_policy(RoleName=NODE_ROLE, PolicyName="bucket-my-fruits")["PolicyDocument"]
    assert kept == node_policy("my-fruits", ["others"])
    (profile,) = iam.list_instance_profiles_for_role(RoleName=NODE_ROLE)["InstanceProfiles"]
    assert profile["InstanceProfileName"] == NODE_ROLE
    (attached,) = iam.list_attached_role_policies(RoleName=SERVICE_ROLE)["AttachedPolicies"]
    assert attached["PolicyName"] == "AmazonEMRServicePolicy_v2"
    assert all(needed.exists for needed in make_all(account, also_read=["others"]))


def test_listing_prerequisites_creates_nothing(account: Account) -> None:
    assert all(not needed.exists for needed in setup.prerequisites(account, EMR, "my-fruits"))
    assert account.client("s3").list_buckets()["Buckets"] == []
    with pytest.raises(SettingsError, match=r"fruits-master, fruits-worker.* do not exist in vpc-.*cluster init"):
        find_vpc(account, EMR)


def test_an_existing_bucket_keeps_its_policy(by_tls: Account) -> None:
    s3 = by_tls.client("s3")
    s3.create_bucket(Bucket="my-fruits", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    theirs = bucket_policy("my-fruits")
    theirs["Statement"][0]["Sid"] = "Theirs"
    s3.put_bucket_policy(Bucket="my-fruits", Policy=json.dumps(theirs))
    make_all(by_tls)
    assert json.loads(s3.get_bucket_policy(Bucket="my-fruits")["Policy"]) == theirs


def test_security_groups_have_no_rules(account: Account) -> None:
    make_all(account)
    network = find_vpc(account, EMR)
    ec2 = account.client("ec2")
    groups = ec2.describe_security_groups(GroupIds=[network.master_group, network.worker_group])["SecurityGroups"]
    assert {group["GroupName"] for group in groups} <= set(GROUPS)
    for group in groups:
        assert group["IpPermissions"] == []
        assert {tag["Key"]: tag["Value"] for tag in group["Tags"]} == {TAG: "init", MANAGED[0]: MANAGED[1]}
    for subnet in ec2.describe_subnets(SubnetIds=list(network.subnets))["Subnets"]:
        assert {"Key": MANAGED[0], "Value": MANAGED[1]} in subnet["Tags"]


def test_only_the_owner_can_read_the_key_of_a_pair(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_all(account, key_pair="mine")
    key = tmp_path / "mine.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE KEY" in key.read_text()
    assert make_all(account, key_pair="mine")[-1].exists


def test_a_failed_key_pair_leaves_no_file(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        refused = ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "No."}}, "CreateKeyPair")
        patch.setattr(account.client("ec2"), "create_key_pair", raising(refused))
        with pytest.raises(InputError, match="Could not create the key pair mine: CreateKeyPair is not permitted"):
            make_all(account, key_pair="mine")
    assert list(tmp_path.iterdir()) == []
    make_all(account, key_pair="mine")
    assert "PRIVATE KEY" in (tmp_path / "mine.pem").read_text()


def test_an_existing_key_file_is_not_overwritten(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pem").write_text("of somebody")
    with pytest.raises(SettingsError, match=r"mine\.pem: File exists\. .*Move the existing file"):
        make_all(account, key_pair="mine")
    assert (tmp_path / "mine.pem").read_text() == "of somebody"
    assert account.client("ec2").describe_key_pairs()["KeyPairs"] == []


def test_a_key_pair_is_deleted_if_its_key_cannot_be_written(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", raising(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(SettingsError, match=r"mine\.pem: No space left on device\. .*the pair was deleted\."):
            make_all(account, key_pair="mine")
        assert list(tmp_path.iterdir()) == []
        assert account.client("ec2").describe_key_pairs()["KeyPairs"] == []
        # If the pair cannot be deleted either, the error names it.
        patch.setattr(account.client("ec2"), "delete_key_pair", raising(EndpointConnectionError(endpoint_url="there")))
        with pytest.raises(
            JobError, match="Could not delete the key pair mine, whose key could not be written to mine"
        ):
            make_all(account, key_pair="mine")


def test_a_key_pair_without_a_local_key_is_described_so(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_all(account, key_pair="mine")[-1].description == "key pair mine, its key in mine.pem"
    (tmp_path / "mine.pem").unlink()
    last = make_all(account, key_pair="mine")[-1]
    assert (last.description, last.exists) == ("key pair mine, whose key is not in this folder as mine.pem", True)


@pytest.mark.parametrize(
    ("location", "region"), [(None, "us-east-1"), ("", "us-east-1"), ("EU", "eu-west-1"), ("eu-west-3", "eu-west-3")]
)
def test_old_bucket_locations_are_translated_to_regions(
    account: Account, monkeypatch: pytest.MonkeyPatch, location: str | None, region: str
) -> None:
    monkeypatch.setattr(
        botocore.client.BaseClient, "_make_api_call", lambda self, operation, given: {"LocationConstraint": location}
    )
    assert region_of("my-fruits") == region


@pytest.mark.parametrize(
    "policy",
    [
        node_policy("my-fruits", ["others"]),
        service_policy("111122223333"),
        user_policy("my-fruits", "111122223333", "eu-west-3"),
    ],
    ids=["node", "service", "user"],
)
def test_policies_have_no_wildcard_actions_and_no_foreign_buckets(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        assert not any("*" in action for action in statement["Action"])
        if any(action.startswith("s3:") for action in statement["Action"]):
            assert {name.partition(":::")[2].partition("/")[0] for name in resources} <= {"my-fruits", "others"}


class Refused:
    """Makes every request fail with one error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str, message: str = "No.") -> None:
        answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}

        def refuse(self: object, operation: str, parameters: object) -> None:
            raise ClientError(answer, operation)

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("ExpiredToken", InputError, r"AWS does not accept the credentials \(ExpiredToken\)\. Give others"),
        ("SignatureDoesNotMatch", InputError, "does not accept the credentials"),
        ("AccessDenied", InputError, r"GetCallerIdentity is not permitted\. .*policy_user\.json"),
        ("Throttling", JobError, "Could not look up the AWS account: GetCallerIdentity: No."),
    ],
)
def test_aws_errors_have_a_plain_message(
    account: Account, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception], message: str
) -> None:
    Refused(monkeypatch, code)
    with pytest.raises(kind, match=message):
        account.identity()


def test_missing_credentials_host_and_region_have_plain_messages(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(JobError, match=r"Could not connect.*Is the region right"):
        Account("eu-west-3").identity()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match=r"Unable to locate credentials\. Give others by the environment"):
        Account("eu-west-3").identity()
    with pytest.raises(SettingsError, match="The AWS region is not set"):
        Account().identity()


def test_other_exceptions_are_not_translated() -> None:
    with pytest.raises(ZeroDivisionError), translated_errors("divide"):
        raise ZeroDivisionError
