"""The IAM policies against the requests of ``fruits cluster`` and of jobs on the nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiobotocore.client
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID

from backends.aws import cli
from backends.aws.account import resources
from backends.aws.account.clients import Account
from backends.aws.account.policies import node_policy, user_policy
from backends.aws.account.tags import TAG
from backends.aws.cli_options import emr_settings
from backends.aws.ec2.launch import create_security_group
from backends.aws.emr import emr_step, steps
from backends.aws.staging.staged_files import StagedFiles
from fruits.images.sample import generate
from tests.aws.conftest import REGION, SECRET
from tests.aws.iam import action, enforce
from tests.s3.server import close_clients

BUCKET = "my-fruits"
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"
IMAGE = "ami-12c6146b"


@pytest.fixture
def beside_others(account: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an account with the clusters of other teams, in which the user policy is enforced."""
    account.client("emr").run_job_flow(Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True})
    enforce(monkeypatch, user_policy(BUCKET, DEFAULT_ACCOUNT_ID, REGION))
    return account


def test_the_user_policy_allows_exactly_the_actions_in_use(
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
    for arguments in (
        ["init", "s3://my-fruits", "--region", REGION, "--key-pair", "mine", "--yes"],
        ["stage"],
        ["up", "emr-notebook", "--quiet"],
        ["status"],
        ["up", "emr-notebook", "--dry-run"],
        ["render", "emr", "--out", "rendered"],
    ):
        cli.call(arguments)
    with pytest.raises(Exception, match="master node of emr-notebook has not started"):
        cli.call(["ssh", "emr-notebook"])
    staged = StagedFiles.for_python("my-fruits", "3.11")
    job = steps.submit_step(
        account, emr_settings("emr", None), ["run"], entry="emr-notebook", bucket="my-fruits", staged=staged
    )
    steps.submit_step(account, emr_settings("emr", None), ["run"], entry="emr", bucket="my-fruits", staged=staged)
    with pytest.raises(StopIteration):
        steps.follow_step(account, job, notify=print, log=print, wait=lambda seconds: next(iter(())))
    account.client("ec2").run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}],
    )
    called.discard(("ec2", "RunInstances"))  # called by this test
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


def test_a_dask_job_ends_among_the_clusters_of_other_teams(beside_others: Account) -> None:
    ec2 = beside_others.client("ec2")
    vpc = ec2.describe_subnets()["Subnets"][0]["VpcId"]
    group = create_security_group(beside_others, vpc, "a-job", "203.0.113.7/32", {TAG: "a-job"})
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": "a-job"}]}]
    ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SecurityGroupIds=[group], TagSpecifications=tags)
    found = resources.find_resources(beside_others)
    assert [each.kind for each in found] == ["instance", "security group"]
    resources.end_resources_of(beside_others, "a-job")
    assert resources.find_resources(beside_others) == []


def test_the_enforced_policy_denies_foreign_resources(beside_others: Account) -> None:
    emr = beside_others.client("emr")
    (theirs,) = (cluster["Id"] for cluster in emr.list_clusters()["Clusters"])
    for refused in (
        lambda: emr.describe_cluster(ClusterId=theirs),
        lambda: beside_others.client("s3").create_bucket(Bucket="theirs"),
    ):
        with pytest.raises(ClientError, match="not authorized to perform"):
            refused()


def test_the_node_policy_allows_exactly_the_actions_of_a_job(
    account: Account, called: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run the step program of EMR: a job, the same job with --overwrite, and a transform with its model."""
    generate(tmp_path / "images", images=12)
    s3 = account.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in (tmp_path / "images").rglob("*.*"):
        s3.upload_file(str(path), BUCKET, f"images/{path.relative_to(tmp_path / 'images').as_posix()}")
    # An unfinished upload of a killed node, which the job aborts.
    s3.create_multipart_upload(Bucket=BUCKET, Key="out/rows/part-00000.parquet")
    called.clear()
    sent: list[tuple[str, dict[str, Any]]] = []
    make = aiobotocore.client.AioBaseClient._make_api_call

    def recorded(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        sent.append((operation, parameters))
        return make(self, operation, parameters)

    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", recorded)
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    settings = {"requester_pays": True, "encryption": "aws:kms", "kms_key": KEY}
    out = ["--out", f"s3://{BUCKET}/out", "--components", "4", "--backend", "local", "--partition-size", "8"]
    images = [f"s3://{BUCKET}/images"]
    for arguments in (
        ["run", *images, *out],
        ["run", *images, *out, "--limit", "10", "--overwrite"],
        ["transform", *images, "--model", f"s3://{BUCKET}/out", "--out", f"s3://{BUCKET}/rows", "--backend", "local"],
    ):
        with pytest.raises(SystemExit) as ended:
            emr_step.main([f"s3://{BUCKET}/fruits/jobs/a-job", json.dumps(settings), *arguments])
        answer = s3.get_object(Bucket=BUCKET, Key="fruits/jobs/a-job/result.json")["Body"].read()
        assert ended.value.code == 0, answer
    close_clients()

    allowed = {name for each in node_policy(BUCKET, key=KEY)["Statement"] for name in each["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # Used by the Session Manager agent, by KMS, by failing uploads, and by EMR when it fetches the step.
    implied = {name for name in allowed if name.startswith(("ssm", "kms:"))}
    implied |= {"s3:AbortMultipartUpload", "s3:GetBucketLocation"}
    assert allowed - used - implied == set()
    written = [given for operation, given in sent if operation in ("PutObject", "CreateMultipartUpload")]
    assert {(each.get("ServerSideEncryption"), each.get("SSEKMSKeyId")) for each in written} == {("aws:kms", KEY)}
    asked = {operation for operation, given in sent if given.get("RequestPayer") != "requester"}
    assert asked <= {"HeadBucket"}
