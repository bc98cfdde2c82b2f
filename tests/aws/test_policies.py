"""The IAM policies of the template, against foreign resources and against the requests that are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiobotocore.client
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID

from backends.aws import cli
from backends.aws.account import resources as account_resources
from backends.aws.account.clients import Account
from backends.aws.account.tags import TAG
from backends.aws.cli_options import emr_settings
from backends.aws.ec2.launch import create_security_group
from backends.aws.emr import emr_step, submitted
from backends.aws.emr import job as emr_job
from backends.aws.emr.releases import DEFAULT, release
from backends.aws.staging.staged_files import StagedFiles
from fruits.images.sample import generate
from tests.aws.conftest import REGION, SECRET
from tests.aws.iam import BUCKET, VPC, action, allows, document, enforce, resources, statements
from tests.s3.server import close_clients

USER = document("UserPolicy", "DaskUserPolicy")
NODE = document("DataPolicy", "NodeRole")
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"
IMAGE = "ami-12c6146b"
EC2 = f"arn:aws:ec2:{REGION}:{DEFAULT_ACCOUNT_ID}"
EMR = f"arn:aws:elasticmapreduce:{REGION}:{DEFAULT_ACCOUNT_ID}:cluster/j-THEIRS"
SERVERLESS = f"arn:aws:emr-serverless:{REGION}:{DEFAULT_ACCOUNT_ID}:/applications/00theirs"
PASSED = "iam:PassedToService"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role"
STAGED = StagedFiles.for_release(BUCKET, release(DEFAULT))


@pytest.mark.parametrize(
    ("name", "arn", "context"),
    [
        ("elasticmapreduce:TerminateJobFlows", EMR, {}),
        ("elasticmapreduce:DescribeCluster", EMR, {}),
        ("elasticmapreduce:AddJobFlowSteps", EMR, {}),
        ("elasticmapreduce:PutAutoTerminationPolicy", EMR, {}),
        ("elasticmapreduce:AddTags", EMR, {"elasticmapreduce:RequestTag/fruits": "mine"}),
        ("elasticmapreduce:RemoveTags", EMR, {"elasticmapreduce:ResourceTag/fruits": "mine"}),
        ("elasticmapreduce:RunJobFlow", None, {}),
        ("emr-serverless:StartJobRun", SERVERLESS, {}),
        ("emr-serverless:DeleteApplication", SERVERLESS, {}),
        ("emr-serverless:TagResource", SERVERLESS, {"aws:RequestTag/fruits": "mine"}),
        ("ssm:StartSession", f"{EC2}:instance/i-1", {}),
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {}),
        ("ec2:GetConsoleOutput", f"{EC2}:instance/i-1", {}),
        ("ec2:CreateTags", f"{EC2}:instance/i-1", {"aws:RequestTag/fruits": "mine"}),
        ("ec2:CreateTags", f"{EC2}:subnet/subnet-1", {"aws:RequestTag/fruits": "mine"}),
        ("ec2:CreateTags", f"{EC2}:instance/i-1", {"ec2:CreateAction": "RunInstances"}),
        ("ec2:RunInstances", f"{EC2}:instance/*", {}),
        ("ec2:RunInstances", f"{EC2}:security-group/sg-1", {}),
        ("ec2:CreateSecurityGroup", f"{EC2}:vpc/vpc-2", {"aws:RequestTag/fruits": "mine"}),
        ("ec2:DeleteSecurityGroup", f"{EC2}:security-group/sg-1", {}),
        # The groups of init are ours, and yet nobody opens them.
        ("ec2:AuthorizeSecurityGroupIngress", f"{EC2}:security-group/sg-1", {"ec2:ResourceTag/fruits": "init"}),
        ("s3:GetObject", "arn:aws:s3:::theirs/secret", {}),
        ("s3:PutBucketPolicy", f"arn:aws:s3:::{BUCKET}", {}),
        ("s3:DeleteBucket", f"arn:aws:s3:::{BUCKET}", {}),
        ("cloudformation:DescribeStackResources", "arn:aws:cloudformation:eu-west-3:1:stack/theirs/1", {}),
    ],
)
def test_nothing_foreign_can_be_tagged_ended_or_opened(name: str, arn: str | None, context: dict[str, str]) -> None:
    assert not allows(USER, name, arn, context)


OURS = {
    "elasticmapreduce:ResourceTag/fruits": "a-job",
    "ec2:ResourceTag/fruits": "a-job",
    "ssm:resourceTag/fruits": "a-job",
    "aws:ResourceTag/fruits": "a-job",
}
NEW = {
    "elasticmapreduce:RequestTag/fruits": "a-job",
    "elasticmapreduce:RequestTag/for-use-with-amazon-emr-managed-policies": "true",
    "aws:RequestTag/fruits": "a-job",
}


@pytest.mark.parametrize(
    ("name", "arn", "context"),
    [
        ("elasticmapreduce:RunJobFlow", EMR, NEW),
        ("elasticmapreduce:AddTags", EMR.replace("j-THEIRS", "*"), NEW),
        # Made by EMR for a request with such a policy, with the tags of the request or those of the new cluster.
        ("elasticmapreduce:PutAutoTerminationPolicy", EMR, NEW),
        ("elasticmapreduce:PutAutoTerminationPolicy", EMR, OURS),
        ("elasticmapreduce:PutManagedScalingPolicy", EMR, NEW),
        (
            "iam:PassRole",
            f"{ROLE}/fruits-emr-service-{REGION}",
            {"iam:PassedToService": "elasticmapreduce.amazonaws.com"},
        ),
        ("iam:PassRole", f"{ROLE}/fruits-node-{REGION}", {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("iam:PassRole", f"{ROLE}/fruits-serverless-{REGION}", {"iam:PassedToService": "emr-serverless.amazonaws.com"}),
        # Made by the AWS CLI: aws ssm start-session, with and without a document.
        ("ssm:StartSession", f"{EC2}:instance/i-1", OURS),
        ("ssm:StartSession", f"arn:aws:ssm:{REGION}::document/AWS-StartPortForwardingSession", {}),
        ("ssm:StartSession", f"arn:aws:ssm:{REGION}:{DEFAULT_ACCOUNT_ID}:document/SSM-SessionManagerRunShell", {}),
        # Made by RunInstances for each resource of a request.
        *(("ec2:RunInstances", f"{EC2}:{kind}/*", NEW) for kind in ("instance", "volume", "network-interface")),
        ("ec2:RunInstances", f"{EC2}:subnet/subnet-1", {}),
        ("ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/{IMAGE}", {}),
        ("ec2:RunInstances", f"{EC2}:security-group/sg-1", OURS),
        ("ec2:CreateTags", f"{EC2}:volume/vol-1", NEW | {"ec2:CreateAction": "RunInstances"}),
        ("ec2:CreateTags", f"{EC2}:security-group/sg-1", NEW | {"ec2:CreateAction": "CreateSecurityGroup"}),
        ("ec2:CreateSecurityGroup", f"{EC2}:vpc/{VPC}", {}),
        ("emr-serverless:StartJobRun", SERVERLESS, OURS),
        ("emr-serverless:CreateApplication", None, NEW),
    ],
)
def test_calls_by_the_aws_cli_and_by_services_are_allowed(name: str, arn: str | None, context: dict[str, str]) -> None:
    assert allows(USER, name, arn, context)


ESCALATIONS = [
    "iam:AddUserToGroup",
    "iam:AttachRolePolicy",
    "iam:AttachUserPolicy",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:CreatePolicyVersion",
    "iam:CreateRole",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:PutUserPolicy",
    "iam:SetDefaultPolicyVersion",
    "iam:UpdateAssumeRolePolicy",
    "sts:AssumeRole",
    "cloudformation:CreateStack",
    "cloudformation:ExecuteChangeSet",
    "lambda:CreateFunction",
    "ec2:AssociateIamInstanceProfile",
    "ec2:ReplaceIamInstanceProfileAssociation",
    "ec2:ModifyInstanceAttribute",
    "ssm:SendCommand",
    "elasticmapreduce:CreateSecurityConfiguration",
]


@pytest.mark.parametrize("policy", [USER, NODE, document("DataPolicy", "ServerlessRole")], ids=["user", "node", "job"])
def test_there_is_no_path_to_administrator(policy: dict[str, Any]) -> None:
    for name in ESCALATIONS:
        for arn in (f"{ROLE}/Administrator", f"{ROLE}/fruits-node-{REGION}", f"{EC2}:instance/i-1", "*"):
            assert not allows(policy, name, arn, OURS | NEW), (name, arn)
    for service in ("ec2.amazonaws.com", "lambda.amazonaws.com", "elasticmapreduce.amazonaws.com"):
        passed = {"iam:PassedToService": service}
        assert not allows(policy, "iam:PassRole", f"{ROLE}/Administrator", passed)
        if service.startswith("lambda"):
            assert not any(
                allows(policy, "iam:PassRole", f"{ROLE}/fruits-{name}-{REGION}", passed) for name in ("node",)
            )
    for statement in policy["Statement"]:
        if statement["Effect"] == "Allow":
            assert not any("*" in name for name in statement["Action"])


def test_nodes_read_the_staged_files_and_cannot_write_them() -> None:
    staged = f"arn:aws:s3:::{BUCKET}/fruits/stage/0.1.0-python3.11/bootstrap_emr.sh"
    for policy in (NODE, document("DataPolicy", "ServerlessRole")):
        assert allows(policy, "s3:GetObject", staged)
        for name in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
            assert not allows(policy, name, staged)
            assert allows(policy, name, f"arn:aws:s3:::{BUCKET}/rows/part-0.parquet")
    assert allows(USER, "s3:PutObject", staged)


def test_every_role_has_the_boundary_which_has_no_iam_but_its_own() -> None:
    boundary = document("Boundary")
    roles = {name: each["Properties"] for name, each in resources().items() if each["Type"] == "AWS::IAM::Role"}
    assert set(roles) == {"ServiceRole", "NodeRole", "ServerlessRole"}
    for name, properties in roles.items():
        assert properties["PermissionsBoundary"] == {"Ref": "Boundary"}
        # Nothing that a role is given is lost at the boundary, and no trust is for everyone.
        for statement in statements(name):
            for each in statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]:
                arn = statement["Resource"] if isinstance(statement["Resource"], str) else None
                assert allows(boundary, each.rstrip("*"), arn), each
        for trust in properties["AssumeRolePolicyDocument"]["Statement"]:
            assert set(trust["Principal"]) == {"Service"}
    for name in ESCALATIONS:
        if not name.startswith("ec2:"):
            assert not allows(boundary, name, f"{ROLE}/Administrator")
    assert not allows(boundary, "iam:PassRole", f"{ROLE}/Administrator")


def test_the_bucket_rejects_requests_without_tls_and_is_private() -> None:
    (policy,) = resources()["DataBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert policy["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (policy["Effect"], policy["Principal"], policy["Action"]) == ("Deny", "*", "s3:*")
    bucket = resources()["DataBucket"]
    assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}


@pytest.fixture
def beside_others(installed: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an account with the clusters of other teams, in which the user policy is enforced."""
    installed.client("emr").run_job_flow(Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True})
    enforce(monkeypatch, USER)
    return installed


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
    monkeypatch.setenv("FRUITS_BUCKET", f"s3://{BUCKET}")
    for arguments in (
        ["stage"],
        ["up", "emr-notebook", "--quiet"],
        ["status"],
        ["up", "emr-notebook", "--dry-run"],
        ["render", "emr", "--out", "rendered"],
    ):
        cli.call(arguments)
    with pytest.raises(Exception, match="master node of emr-notebook has not started"):
        cli.call(["ssh", "emr-notebook"])
    settings = emr_settings("emr", None)
    more: dict[str, Any] = {"staged": STAGED, "notify": print}
    job = emr_job.submit_step(account, settings, ["run"], entry="emr-notebook", **more)
    emr_job.submit_step(account, settings, ["fit"], entry="emr", **more)
    with pytest.raises(StopIteration):
        submitted.follow(job, notify=print, log=print, wait=lambda seconds: next(iter(())))
    account.client("ec2").run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}],
    )
    called.discard(("ec2", "RunInstances"))  # called by this test
    cli.call(["down", "--all", "--yes"])

    allowed = {name for statement in USER["Statement"] for name in statement["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # Calls of the AWS CLI and of services, which other tests evaluate; multipart uploads; and those of Dask on EC2 and
    # EMR Serverless, whose tests compare them with the policy.
    implied = {name for name in allowed if name.startswith(("emr-serverless:", "ec2:", "ssm:"))}
    implied |= {
        "elasticmapreduce:AddTags",
        "elasticmapreduce:CancelSteps",
        "elasticmapreduce:PutAutoTerminationPolicy",
        "elasticmapreduce:PutManagedScalingPolicy",
        "iam:PassRole",
        "s3:AbortMultipartUpload",
        "s3:ListBucketMultipartUploads",
    }
    assert allowed - used - implied == set()
    written = "".join(path.read_text() for path in (tmp_path / "rendered").iterdir()) + "".join(capfd.readouterr())
    assert SECRET not in written


def test_a_dask_job_ends_among_the_clusters_of_other_teams(beside_others: Account) -> None:
    ec2 = beside_others.client("ec2")
    vpc = ec2.describe_subnets()["Subnets"][0]["VpcId"]
    enforced = {"fruits": "a-job"}
    with pytest.MonkeyPatch.context() as patch:  # the template names the VPC of the account
        patch.setitem(USER, "Statement", json.loads(json.dumps(USER["Statement"]).replace(VPC, vpc)))
        group = create_security_group(beside_others, vpc, "a-job", "203.0.113.7/32", enforced)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": "a-job"}]}]
    ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SecurityGroupIds=[group], TagSpecifications=tags)
    found = account_resources.find_resources(beside_others)
    assert [each.kind for each in found] == ["instance", "security group"]
    account_resources.end_resources_of(beside_others, "a-job")
    assert account_resources.find_resources(beside_others) == []


def test_the_enforced_policy_denies_foreign_resources(beside_others: Account) -> None:
    emr = beside_others.client("emr")
    (theirs,) = (cluster["Id"] for cluster in emr.list_clusters()["Clusters"])
    for refused in (
        lambda: emr.describe_cluster(ClusterId=theirs),
        lambda: emr.terminate_job_flows(JobFlowIds=[theirs]),
        lambda: emr.add_tags(ResourceId=theirs, Tags=[{"Key": "fruits", "Value": "mine"}]),
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

    allowed = {name for each in statements("DataPolicy") if each["Effect"] == "Allow" for name in each["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # Used by failing uploads, and by EMR when it fetches the step.
    assert allowed - used - {"s3:AbortMultipartUpload", "s3:GetBucketLocation"} == set()
    written = [given for operation, given in sent if operation in ("PutObject", "CreateMultipartUpload")]
    assert {(each.get("ServerSideEncryption"), each.get("SSEKMSKeyId")) for each in written} == {("aws:kms", KEY)}
    asked = {operation for operation, given in sent if given.get("RequestPayer") != "requester"}
    assert asked <= {"HeadBucket"}
