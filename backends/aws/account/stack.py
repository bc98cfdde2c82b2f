"""The CloudFormation stack of an account: ``fruits cluster init`` and ``remove``. Its template is ``stack.yaml``."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.tags import SETUP, aws_tags, tags_of
from fruits.errors import JobError, SettingsError
from fruits.storage.s3.errors import FORBIDDEN
from fruits.storage.s3.settings import S3Settings

STACK = "fruits"
GROUPS = ("MasterGroup", "WorkerGroup", "ServiceGroup")
RANDOM = (*GROUPS, "SecurityConfiguration")  # resources whose names CloudFormation makes
NEVER_DEPLOYED = "REVIEW_IN_PROGRESS"  # the state of a stack with a change set that was never executed
KEY_ARN = re.compile(r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")
WAIT = {"Delay": 5, "MaxAttempts": 180}


@dataclass(frozen=True, slots=True)
class Installed:
    """Names and identifiers of the resources of the stack; by the template, or by CloudFormation."""

    region: str
    account: str
    master_group: str = "sg-master"
    worker_group: str = "sg-worker"
    service_group: str = "sg-service"
    security_configuration: str = "fruits"

    @property
    def service_role(self) -> str:
        """The role of EMR itself."""
        return f"fruits-emr-service-{self.region}"

    @property
    def node_profile(self) -> str:
        """The instance profile of programs on a node."""
        return f"fruits-node-{self.region}"

    @property
    def serverless_role(self) -> str:
        """The ARN of the role of jobs on EMR Serverless."""
        return f"arn:aws:iam::{self.account}:role/fruits-serverless-{self.region}"

    @property
    def log_group(self) -> str:
        """The log group of EMR Serverless."""
        return f"/fruits/{self.region}"


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A proposed change of the stack.

    Attributes
    ----------
    identifier, stack : str
        The ARNs of the change set, and of its stack, by which its events are found also after its deletion.
    kind : {"CREATE", "UPDATE"}
    changes : list of (str, str, str)
        The action, the type and the name of each resource.
    """

    identifier: str
    stack: str
    kind: str
    changes: list[tuple[str, str, str]]

    def continues(self, region: str) -> str:
        """Return the message of a client that leaves the deployment running."""
        place = f"--stack-name {STACK} --region {region}"
        undo = f"aws cloudformation cancel-update-stack {place}"
        if self.kind == "CREATE":
            undo = f"fruits cluster remove --region {region}"
        return (
            f"The deployment of the stack {STACK} continues in AWS. To look at it: "
            f"aws cloudformation describe-stack-events {place}. To undo it: {undo}"
        )


def template() -> str:
    """Return the template of the stack."""
    return (files("backends.aws.account") / "stack.yaml").read_text(encoding="utf-8")


def find_installed(account: Account) -> Installed:
    """Return the resources of the stack in the region of the account.

    Raises
    ------
    SettingsError
        ``fruits cluster init`` was not run in this region.
    """
    region, found = account.region_name, _resources(account)
    if not found.keys() >= set(RANDOM):
        raise SettingsError(
            f"The stack {STACK} does not exist in {region}. Create it with: fruits cluster init s3://my-fruits "
            f"--region {region}."
        )
    return Installed(region, account.identity(), *(found[name] for name in RANDOM))


def propose(
    account: Account, bucket: str, vpc: str, *, also_read: Sequence[str] = (), user: str | None, s3: S3Settings
) -> ChangeSet:
    """Create a change set of the stack; nothing changes until :func:`apply`.

    Parameters
    ----------
    account : Account
    bucket : str
        Without ``s3://``; it becomes a resource of the stack unless it exists.
    vpc : str
    also_read : sequence of str
        Other buckets that the nodes may read.
    user : str, optional
        An IAM user who receives the user policies.
    s3 : S3Settings
        With the KMS key of the bucket.
    """
    stack = _stack(account)
    kind = "CREATE" if stack is None or stack["StackStatus"] == NEVER_DEPLOYED else "UPDATE"
    parameters = [] if stack is None else stack.get("Parameters", [])
    before = {each["ParameterKey"]: each["ParameterValue"] for each in parameters}
    owned = before.get("Bucket") == bucket and before.get("CreateBucket") == "true" and kind == "UPDATE"
    given = {
        "Bucket": bucket,
        "CreateBucket": "true" if owned or not _bucket_exists(account, bucket) else "false",
        "Vpc": vpc,
        "ReadBuckets": ",".join(f"arn:aws:s3:::{name}" for name in also_read),
        "ReadObjects": ",".join(f"arn:aws:s3:::{name}/*" for name in also_read),
        "BucketKey": key_arn(s3) or "",
        "User": user or "",
    }
    # What is not given keeps its value; a failed creation leaves nothing, and can be repeated.
    kept: dict[str, Any] = {"UsePreviousValue": True}
    values = [
        {"ParameterKey": key, **({"ParameterValue": value} if value or kind == "CREATE" else kept)}
        for key, value in given.items()
    ]
    more = {"OnStackFailure": "DELETE"} if kind == "CREATE" else {}
    cloudformation = account.client("cloudformation")
    from botocore.exceptions import WaiterError  # not at the start of the module, for commands that need no boto3

    with translated_errors(f"propose the stack {STACK}"):
        created = cloudformation.create_change_set(
            StackName=STACK,
            ChangeSetName=f"init-{time.time_ns()}",
            ChangeSetType=kind,
            TemplateBody=template(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=values,
            Tags=aws_tags(tags_of(SETUP)),
            **more,
        )
        identifier = created["Id"]
        try:
            cloudformation.get_waiter("change_set_create_complete").wait(ChangeSetName=identifier, WaiterConfig=WAIT)
        except WaiterError as error:
            reason = str(getattr(error, "last_response", {}).get("StatusReason", error))
            cloudformation.delete_change_set(ChangeSetName=identifier)
            if "didn't contain changes" in reason or "No updates" in reason:
                return ChangeSet("", created["StackId"], kind, [])
            raise JobError(f"CloudFormation rejected the stack {STACK}: {reason}") from error
        listed = cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=identifier)
        changes = [change["ResourceChange"] for page in listed for change in page["Changes"]]
    rows = [(each["Action"], each["ResourceType"], each["LogicalResourceId"]) for each in changes]
    return ChangeSet(identifier, created["StackId"], kind, rows)


def discard(account: Account, proposed: ChangeSet) -> None:
    """Delete a change set, and the empty stack of one that would have created it."""
    cloudformation = account.client("cloudformation")
    with translated_errors("discard the change set"):
        if proposed.identifier:
            cloudformation.delete_change_set(ChangeSetName=proposed.identifier)
        if proposed.kind == "CREATE":
            cloudformation.delete_stack(StackName=STACK)


def apply(account: Account, proposed: ChangeSet) -> None:
    """Execute a change set, and wait for its end.

    Raises
    ------
    JobError
        CloudFormation has rolled the change back; the message has its reasons.
    """
    cloudformation = account.client("cloudformation")
    with translated_errors(f"deploy the stack {STACK}"):
        cloudformation.execute_change_set(ChangeSetName=proposed.identifier)
        _wait(cloudformation, f"stack_{proposed.kind.lower()}_complete", proposed.stack)


def remove(account: Account) -> str | None:
    """Delete the stack, and return its bucket, which remains with its objects; None without a stack.

    EMR's rules in the security groups refer to the other groups; they are revoked first, as they block the deletion.
    """
    stack = _stack(account)
    if stack is None:
        return None
    ec2, cloudformation = account.client("ec2"), account.client("cloudformation")
    found = _resources(account)
    groups = [found[name] for name in GROUPS if name in found]  # a creation that was interrupted has not all
    with translated_errors("revoke the rules of the security groups"):
        described = ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"] if groups else []
        for group in described:
            outgoing = [rule for rule in group["IpPermissionsEgress"] if rule.get("UserIdGroupPairs")]
            if group["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
            if outgoing:
                ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=outgoing)
    with translated_errors(f"delete the stack {STACK}"):
        cloudformation.delete_stack(StackName=STACK)
        _wait(cloudformation, "stack_delete_complete", stack["StackId"])
    return next(str(each["ParameterValue"]) for each in stack["Parameters"] if each["ParameterKey"] == "Bucket")


def key_arn(s3: S3Settings) -> str | None:
    """Return the ARN of the KMS key that a policy must allow, or None if no such key is set.

    Raises
    ------
    SettingsError
        The key is not set by its ARN.
    """
    if s3.kms_key is None or KEY_ARN.match(s3.kms_key):
        return s3.kms_key
    raise SettingsError(
        f"SSEKMSKeyId {s3.kms_key}: not an ARN, as policies require. Set it to arn:aws:kms:REGION:ACCOUNT:key/ID."
    )


def _stack(account: Account) -> dict[str, Any] | None:
    """Return the description of the stack, or None if it does not exist."""
    return next(iter(_described(account, "describe_stacks").get("Stacks", ())), None)


def _resources(account: Account) -> dict[str, str]:
    """Return the identifiers of the resources that the stack has, by their names in the template."""
    listed = _described(account, "describe_stack_resources").get("StackResources", ())
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed if each.get("PhysicalResourceId")}


def _described(account: Account, operation: str) -> dict[str, Any]:
    """Return the answer of CloudFormation about the stack; an empty one if it does not exist."""
    cloudformation = account.client("cloudformation")
    with translated_errors(f"look up the stack {STACK}"):
        try:
            answer: dict[str, Any] = getattr(cloudformation, operation)(StackName=STACK)
        except cloudformation.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError" or "does not exist" not in str(error):
                raise
            return {}
    return answer


def _bucket_exists(account: Account, bucket: str) -> bool:
    s3 = account.client("s3")
    with translated_errors(f"look up the bucket {bucket}"):
        try:
            found = s3.head_bucket(Bucket=bucket)
        except s3.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in FORBIDDEN:
                raise SettingsError(
                    f"s3://{bucket} exists, and you have no access to it. The names of buckets are unique worldwide: "
                    "give another one. If the bucket is yours, use the credentials of its administrator."
                ) from error
            if code in ("404", "NoSuchBucket"):
                return False
            raise
    if found.get("BucketRegion", account.region_name) != account.region_name:
        raise SettingsError(
            f"s3://{bucket} is in {found['BucketRegion']}, not in {account.region_name}. "
            f"Give --region {found['BucketRegion']}, or another bucket."
        )
    return True


def _wait(cloudformation: Any, condition: str, stack: str) -> None:
    from botocore.exceptions import WaiterError

    try:
        cloudformation.get_waiter(condition).wait(StackName=stack, WaiterConfig=WAIT)
    except WaiterError as error:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        reasons = [
            f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', each['ResourceStatus'])}"
            for each in events
            if each["ResourceStatus"].endswith("_FAILED")
        ]
        raise JobError(f"The stack {STACK} failed: {'; '.join(reasons) or error}") from error
