"""The policies against what is really called over HTTP: by ``fruits cluster``, and by jobs on the nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiobotocore.client
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID

from backends.aws import cli
from backends.aws.account import resources as cleanup
from backends.aws.account.clients import TAG, Account
from backends.aws.account.roles import node_policy, user_policy
from backends.aws.ec2.launch import create_security_group
from backends.aws.emr import emr_step
from backends.aws.emr import steps as emr_run
from backends.aws.staging.staged import StagedFiles
from fruits.images.sample import generate
from tests.aws.actions import action, decide
from tests.aws.conftest import REGION, SECRET
from tests.s3.server import close_clients

BUCKET = "my-fruits"
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"
IMAGE = "ami-12c6146b"


@pytest.fixture
def beside_others(account: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an account where other teams have clusters, and the user's policy decides on every request."""
    account.client("emr").run_job_flow(Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True})
    decide(monkeypatch, user_policy(BUCKET, DEFAULT_ACCOUNT_ID, REGION))
    return account


def test_the_users_policy_allows_every_action_that_is_called_and_no_other(
    called: set[tuple[str, str]],
    beside_others: Account,
    small_wheelhouse: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    account = beside_others
    called.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("FRUITS_BUCKET", "s3://my-fruits")
    for words in (
        ["init", "s3://my-fruits", "--region", REGION, "--key-pair", "mine", "--yes"],
        ["stage"],
        ["up", "emr-notebook", "--quiet"],
        ["status"],
        ["up", "emr-notebook", "--dry-run"],
        ["render", "emr", "--out", "rendered"],
    ):
        cli.call(words)
    with pytest.raises(Exception, match="no leading node yet"):
        cli.call(["ssh", "emr-notebook"])
    staged = StagedFiles.of("my-fruits", "3.11")
    job = emr_run.start_step(
        account, cli._emr("emr", None), ["run"], entry="emr-notebook", bucket="my-fruits", staged=staged
    )
    emr_run.start_step(account, cli._emr("emr", None), ["run"], entry="emr", bucket="my-fruits", staged=staged)
    with pytest.raises(StopIteration):
        emr_run.follow(account, job, tell=print, log=print, wait=lambda seconds: next(iter(())))
    account.client("ec2").run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}],
    )
    called.discard(("ec2", "RunInstances"))  # of the test, not of the commands
    cli.call(["down", "--all", "--yes"])

    policy = user_policy("my-fruits", "111122223333", REGION)
    allowed = {name for statement in policy["Statement"] for name in statement["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # Implied by tags, roles, multipart uploads and TLS; or used by Dask on EC2, as its own test checks.
    implied = {
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:DeleteKeyPair",  # one whose key could not be written
        "ec2:DeleteSecurityGroup",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypes",
        "ec2:RunInstances",
        "elasticmapreduce:AddTags",
        "iam:PassRole",
        "iam:TagInstanceProfile",
        "iam:TagRole",
        "s3:AbortMultipartUpload",
        "s3:GetBucketPolicy",
        "s3:PutBucketPolicy",
        "s3:ListBucketMultipartUploads",
    }
    assert allowed - used - implied == set()
    written = "".join(path.read_text() for path in (tmp_path / "rendered").iterdir()) + "".join(capfd.readouterr())
    assert SECRET not in written
    assert json.loads((tmp_path / "rendered" / "policy_user.json").read_text())["Statement"]


def test_a_job_on_dask_ends_beside_the_clusters_of_others(beside_others: Account) -> None:
    ec2 = beside_others.client("ec2")
    vpc = ec2.describe_subnets()["Subnets"][0]["VpcId"]
    group = create_security_group(beside_others, vpc, "a-job", "203.0.113.7/32", {TAG: "a-job"})
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": "a-job"}]}]
    ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SecurityGroupIds=[group], TagSpecifications=tags)
    found = cleanup.find(beside_others)
    assert [each.kind for each in found] == ["instance", "security group"]
    cleanup.end(beside_others, "a-job")
    assert cleanup.find(beside_others) == []


def test_the_policy_of_these_tests_refuses_what_is_not_ours(beside_others: Account) -> None:
    emr = beside_others.client("emr")
    (theirs,) = (cluster["Id"] for cluster in emr.list_clusters()["Clusters"])
    for refused in (
        lambda: emr.describe_cluster(ClusterId=theirs),
        lambda: beside_others.client("s3").create_bucket(Bucket="theirs"),
    ):
        with pytest.raises(ClientError, match="not authorized to perform"):
            refused()


def test_the_nodes_policy_allows_every_action_that_a_job_calls_there_and_no_other(
    account: Account, called: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The step itself, as it runs on EMR: a job, the same once more, overwritten, and what it leaves is used."""
    generate(tmp_path / "images", images=12)
    s3 = account.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in (tmp_path / "images").rglob("*.*"):
        s3.upload_file(str(path), BUCKET, f"images/{path.relative_to(tmp_path / 'images').as_posix()}")
    # An upload that a killed node left, to be swept.
    s3.create_multipart_upload(Bucket=BUCKET, Key="out/rows/part-00000.parquet")
    called.clear()
    sent: list[tuple[str, dict[str, Any]]] = []
    make = aiobotocore.client.AioBaseClient._make_api_call

    def noted(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        sent.append((operation, parameters))
        return make(self, operation, parameters)

    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", noted)
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    settings = {"requester_pays": True, "encryption": "aws:kms", "kms_key": KEY}
    out = ["--out", f"s3://{BUCKET}/out", "--components", "4", "--backend", "local", "--partition-size", "8"]
    images = [f"s3://{BUCKET}/images"]
    for words in (
        ["run", *images, *out],
        ["run", *images, *out, "--limit", "10", "--overwrite"],
        ["transform", *images, "--model", f"s3://{BUCKET}/out", "--out", f"s3://{BUCKET}/rows", "--backend", "local"],
    ):
        with pytest.raises(SystemExit) as ended:
            emr_step.main([f"s3://{BUCKET}/fruits/jobs/a-job", json.dumps(settings), *words])
        answer = s3.get_object(Bucket=BUCKET, Key="fruits/jobs/a-job/result.json")["Body"].read()
        assert ended.value.code == 0, answer
    close_clients()

    allowed = {name for each in node_policy(BUCKET, key=KEY)["Statement"] for name in each["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # The Session Manager's own program, KMS for who reads and writes, an upload that fails in its middle, and
    # what EMR's programs look up that fetch the step.
    implied = {name for name in allowed if name.startswith(("ssm", "kms:"))}
    implied |= {"s3:AbortMultipartUpload", "s3:GetBucketLocation"}
    assert allowed - used - implied == set()
    written = [given for operation, given in sent if operation in ("PutObject", "CreateMultipartUpload")]
    assert {(each.get("ServerSideEncryption"), each.get("SSEKMSKeyId")) for each in written} == {("aws:kms", KEY)}
    asked = {operation for operation, given in sent if given.get("RequestPayer") != "requester"}
    assert asked <= {"HeadBucket"}
