"""The policy of the user who runs ``fruits cluster init`` and ``remove``, instead of an administrator."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from moto.core import DEFAULT_ACCOUNT_ID

from backends.aws import cli
from backends.aws.account.clients import Account
from tests.aws.conftest import REGION
from tests.aws.iam import BUCKET, allows, enforce, resources

POLICY: dict[str, Any] = json.loads((files("backends.aws.account") / "setup_policy.json").read_text())
# Of properties that the template does not set.
UNUSED = (
    "firehose:*", "iam:*Group*", "iam:*UserPolicy", "logs:*Delivery", "logs:*DataProtectionPolicy", "logs:*IndexPolicy",
    "logs:*ResourcePolicy", "logs:PutBearerTokenAuthentication", "s3:*MetadataTable*", "s3:DeleteObject",
    "s3:PutObject*", "s3:Put*ObjectLock*", "s3:REST.PUT.OBJECT", "s3:PutBucket[ACLNORVW]*",
    "s3:Put[AMIR]*Configuration", "s3tables:*",
)  # fmt: skip
ROLE, USER = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role", f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:user/ada"
OWN = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:policy/fruits"
BOUNDARY = f"{OWN}-boundary-{REGION}"
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
GROUP = f"arn:aws:ec2:{REGION}:{DEFAULT_ACCOUNT_ID}:security-group/sg-1"


def test_init_and_remove_need_no_other_permission(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    serverless = account.client("emr-serverless")  # a job has ended there; its application remains
    application = serverless.create_application(name="fruits-a", releaseLabel="emr-7.13.0", type="SPARK")
    serverless.start_job_run(applicationId=application["applicationId"], executionRoleArn=f"{ROLE}/fruits")
    account.client("iam").create_user(UserName="ada")
    enforce(monkeypatch, POLICY)
    made: Any = cli.call(["init", f"s3://{BUCKET}", "--region", REGION, "--user", "ada", "--yes"])
    assert made.values["made"]
    removed: Any = cli.call(["remove", "--region", REGION, "--yes"])
    assert removed.values["removed"]


@pytest.mark.parametrize("kind", sorted({each["Type"] for each in resources().values()}))
def test_cloudformation_can_make_and_delete_each_resource(kind: str) -> None:
    """CloudFormation acts with the permissions of its caller; the schema of a resource lists those that it needs."""
    handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
    needed = {
        name for handler in ("create", "read", "delete") for name in handlers.get(handler, {}).get("permissions", ())
    }
    needed = {name for name in needed if not any(fnmatchcase(name, pattern) for pattern in UNUSED)}
    listed = [each["Action"] for each in POLICY["Statement"]]
    allowed = [pattern for actions in listed for pattern in ([actions] if isinstance(actions, str) else actions)]
    assert needed
    assert {name for name in needed if not any(fnmatchcase(name, pattern) for pattern in allowed)} == set()


@pytest.mark.parametrize(
    ("name", "arn", "context", "allowed"),
    [
        ("iam:CreateRole", f"{ROLE}/fruits-node-{REGION}", {"iam:PermissionsBoundary": BOUNDARY}, True),
        ("iam:CreateRole", f"{ROLE}/fruits-node-{REGION}", {}, False),
        ("iam:CreateRole", f"{ROLE}/fruits-node-{REGION}", {"iam:PermissionsBoundary": ADMINISTRATOR}, False),
        ("iam:CreateRole", f"{ROLE}/mine", {"iam:PermissionsBoundary": BOUNDARY}, False),
        ("iam:DeleteRole", f"{ROLE}/theirs", {}, False),
        ("iam:DeleteRolePermissionsBoundary", f"{ROLE}/fruits-node-{REGION}", {}, False),
        ("iam:PassRole", f"{ROLE}/theirs", {}, False),
        ("iam:AttachUserPolicy", USER, {"iam:PolicyARN": f"{OWN}-user-{REGION}"}, True),
        ("iam:AttachUserPolicy", USER, {"iam:PolicyARN": ADMINISTRATOR}, False),
        ("iam:CreateAccessKey", USER, {}, False),
        ("iam:CreateServiceLinkedRole", f"{ROLE}/aws-service-role/x", {"iam:AWSServiceName": "x.amazonaws.com"}, False),
        ("cloudformation:DeleteStack", "arn:aws:cloudformation:eu-west-3:1:stack/theirs/1", {}, False),
        ("ec2:DeleteSecurityGroup", GROUP, {"aws:ResourceTag/fruits": "init"}, True),
        ("ec2:DeleteSecurityGroup", GROUP, {}, False),
        ("ec2:AuthorizeSecurityGroupIngress", GROUP, {}, False),
        ("ec2:CreateTags", GROUP, {"aws:RequestTag/fruits": "init"}, False),
        ("ec2:TerminateInstances", None, {}, False),
        ("kms:ScheduleKeyDeletion", f"arn:aws:kms:{REGION}:{DEFAULT_ACCOUNT_ID}:key/1", {}, False),
        ("logs:DeleteLogGroup", f"arn:aws:logs:{REGION}:{DEFAULT_ACCOUNT_ID}:log-group:/theirs", {}, False),
        ("s3:DeleteBucket", "arn:aws:s3:::theirs", {}, False),
        ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/images/1.jpg", {}, False),
    ],
)  # fmt: skip
def test_nothing_foreign_is_allowed(name: str, arn: str | None, context: dict[str, str], allowed: bool) -> None:
    assert allows(POLICY, name, arn, context) == allowed
