"""What init makes, who may do what, and what AWS refuses in words; against moto's server."""

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
from backends.aws.account.clients import MANAGED, TAG, Account, explained, region_of
from backends.aws.account.roles import NODE_ROLE, SERVICE_ROLE, bucket_policy, node_policy, service_policy, user_policy
from backends.aws.account.vpc import GROUPS, find_network
from fruits.clusters.clouds import EmrCluster
from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.settings import S3Settings

EMR = EmrCluster(backend="spark", cloud="emr")
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"


def make_all(account: Account, bucket: str = "my-fruits", **more: Any) -> list[setup.Thing]:
    things = []
    for thing in setup.needed(account, EMR, bucket, **more):
        thing.make()
        things.append(thing)
    return things


def raising(error: Exception) -> Callable[..., None]:
    def call(*given: object, **more: object) -> None:
        raise error

    return call


@pytest.fixture
def by_tls(account: Account) -> Account:
    """Return the account, which is taken for one that is reached by TLS."""
    account.client("s3").meta._endpoint_url = "https://s3.eu-west-3.amazonaws.com"
    return account


def test_init_makes_a_bucket_that_is_private_encrypted_and_reached_by_tls_alone(by_tls: Account) -> None:
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


def test_what_a_key_of_kms_encrypts_can_be_written_and_read(account: Account) -> None:
    s3 = S3Settings(encryption="aws:kms", kms_key=KEY)
    make_all(account, s3=s3)
    there = account.client("s3").get_bucket_encryption(Bucket="my-fruits")["ServerSideEncryptionConfiguration"]
    assert there["Rules"][0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    kept = account.client("iam").get_role_policy(RoleName=NODE_ROLE, PolicyName="bucket-my-fruits")["PolicyDocument"]
    for policy in (kept, user_policy("my-fruits", "111122223333", "eu-west-3", KEY)):
        (allowed,) = (each for each in policy["Statement"] if each["Resource"] == KEY)
        assert allowed["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    with pytest.raises(SettingsError, match="alias/fruits: a policy names a key by its ARN alone"):
        make_all(account, s3=S3Settings(encryption="aws:kms", kms_key="alias/fruits"))


def test_init_makes_roles_and_a_second_run_finds_everything_there(account: Account) -> None:
    first = make_all(account, also_read=["others"])
    assert not any(thing.there for thing in first)
    iam = account.client("iam")
    kept = iam.get_role_policy(RoleName=NODE_ROLE, PolicyName="bucket-my-fruits")["PolicyDocument"]
    assert kept == node_policy("my-fruits", ["others"])
    (profile,) = iam.list_instance_profiles_for_role(RoleName=NODE_ROLE)["InstanceProfiles"]
    assert profile["InstanceProfileName"] == NODE_ROLE
    (attached,) = iam.list_attached_role_policies(RoleName=SERVICE_ROLE)["AttachedPolicies"]
    assert attached["PolicyName"] == "AmazonEMRServicePolicy_v2"
    assert all(thing.there for thing in make_all(account, also_read=["others"]))


def test_nothing_is_made_before_it_is_asked_for(account: Account) -> None:
    assert all(not thing.there for thing in setup.needed(account, EMR, "my-fruits"))
    assert account.client("s3").list_buckets()["Buckets"] == []
    with pytest.raises(SettingsError, match=r"fruits-master, fruits-worker.* not in vpc-.*fruits cluster init"):
        find_network(account, EMR)


def test_a_bucket_that_is_there_keeps_its_own_policy_and_encryption(by_tls: Account) -> None:
    s3 = by_tls.client("s3")
    s3.create_bucket(Bucket="my-fruits", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    theirs = bucket_policy("my-fruits")
    theirs["Statement"][0]["Sid"] = "Theirs"
    s3.put_bucket_policy(Bucket="my-fruits", Policy=json.dumps(theirs))
    make_all(by_tls)
    assert json.loads(s3.get_bucket_policy(Bucket="my-fruits")["Policy"]) == theirs


def test_no_rule_of_a_security_group_admits_anybody_from_outside(account: Account) -> None:
    make_all(account)
    network = find_network(account, EMR)
    ec2 = account.client("ec2")
    groups = ec2.describe_security_groups(GroupIds=[network.master_group, network.worker_group])["SecurityGroups"]
    assert {group["GroupName"] for group in groups} <= set(GROUPS)
    for group in groups:
        assert group["IpPermissions"] == []
        assert {tag["Key"]: tag["Value"] for tag in group["Tags"]} == {TAG: "init", MANAGED[0]: MANAGED[1]}
    for subnet in ec2.describe_subnets(SubnetIds=list(network.subnets))["Subnets"]:
        assert {"Key": MANAGED[0], "Value": MANAGED[1]} in subnet["Tags"]


def test_a_key_pair_is_written_for_its_owner_alone(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_all(account, key_pair="mine")
    key = tmp_path / "mine.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE KEY" in key.read_text()
    assert make_all(account, key_pair="mine")[-1].there


def test_a_key_pair_that_aws_refuses_leaves_no_file_and_is_made_at_the_next_try(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        refused = ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "No."}}, "CreateKeyPair")
        patch.setattr(account.client("ec2"), "create_key_pair", raising(refused))
        with pytest.raises(InputError, match="Could not make the key pair mine: CreateKeyPair is not permitted"):
            make_all(account, key_pair="mine")
    assert list(tmp_path.iterdir()) == []
    make_all(account, key_pair="mine")
    assert "PRIVATE KEY" in (tmp_path / "mine.pem").read_text()


def test_the_file_of_another_key_is_left_and_no_pair_is_made(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pem").write_text("of somebody")
    with pytest.raises(SettingsError, match=r"mine\.pem: File exists\. .*Move away what is there"):
        make_all(account, key_pair="mine")
    assert (tmp_path / "mine.pem").read_text() == "of somebody"
    assert account.client("ec2").describe_key_pairs()["KeyPairs"] == []


def test_a_key_that_cannot_be_written_takes_its_pair_with_it(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", raising(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(SettingsError, match=r"mine\.pem: No space left on device\. .*the pair was deleted again"):
            make_all(account, key_pair="mine")
        assert list(tmp_path.iterdir()) == []
        assert account.client("ec2").describe_key_pairs()["KeyPairs"] == []
        # Where not even that can be done, the error says that the pair is there.
        patch.setattr(account.client("ec2"), "delete_key_pair", raising(EndpointConnectionError(endpoint_url="there")))
        with pytest.raises(
            JobError, match="Could not delete the key pair mine, whose key could not be written to mine"
        ):
            make_all(account, key_pair="mine")


def test_a_pair_whose_key_is_elsewhere_is_told_of_as_that(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_all(account, key_pair="mine")[-1].words == "key pair mine, its key in mine.pem"
    (tmp_path / "mine.pem").unlink()
    last = make_all(account, key_pair="mine")[-1]
    assert (last.words, last.there) == ("key pair mine, whose key is not in this folder as mine.pem", True)


@pytest.mark.parametrize(
    ("said", "region"), [(None, "us-east-1"), ("", "us-east-1"), ("EU", "eu-west-1"), ("eu-west-3", "eu-west-3")]
)
def test_the_region_of_a_bucket_is_known_by_its_old_name_too(
    account: Account, monkeypatch: pytest.MonkeyPatch, said: str | None, region: str
) -> None:
    monkeypatch.setattr(
        botocore.client.BaseClient, "_make_api_call", lambda self, operation, given: {"LocationConstraint": said}
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
def test_policies_name_their_actions_and_everything_of_s3_by_its_bucket(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        assert not any("*" in action for action in statement["Action"])
        if any(action.startswith("s3:") for action in statement["Action"]):
            assert {name.partition(":::")[2].partition("/")[0] for name in resources} <= {"my-fruits", "others"}


class Refused:
    """Any service: every request ends with one error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str, message: str = "No.") -> None:
        answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}

        def refuse(self: object, operation: str, parameters: object) -> None:
            raise ClientError(answer, operation)

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ExpiredToken", InputError, r"AWS does not accept the credentials \(ExpiredToken\)\. Give others"),
        ("SignatureDoesNotMatch", InputError, "does not accept the credentials"),
        ("AccessDenied", InputError, r"GetCallerIdentity is not permitted\. .*policy_user\.json"),
        ("Throttling", JobError, "Could not ask AWS who you are: GetCallerIdentity: No."),
    ],
)
def test_what_aws_refuses_is_said_in_words(
    account: Account, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception], words: str
) -> None:
    Refused(monkeypatch, code)
    with pytest.raises(kind, match=words):
        account.identity()


def test_missing_credentials_a_wrong_host_and_a_missing_region_are_said_in_words(
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
    with pytest.raises(SettingsError, match="No region of AWS is known"):
        Account().identity()


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), explained("divide"):
        raise ZeroDivisionError
