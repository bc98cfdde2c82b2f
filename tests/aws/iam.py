"""IAM: the action of each request, and enforcement of a policy, which moto does not do."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import aiobotocore.client
import botocore.client
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.emr.models import emr_backends

__all__ = ["action", "enforce"]

# Actions whose names differ from their requests: https://docs.aws.amazon.com/service-authorization/latest/reference/
ACTIONS = {
    ("s3", "CreateMultipartUpload"): "s3:PutObject",
    ("s3", "DeleteObjects"): "s3:DeleteObject",
    ("s3", "HeadBucket"): "s3:ListBucket",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListMultipartUploads"): "s3:ListBucketMultipartUploads",
    ("s3", "PutBucketEncryption"): "s3:PutEncryptionConfiguration",
    ("s3", "PutBucketLifecycleConfiguration"): "s3:PutLifecycleConfiguration",
    ("s3", "PutPublicAccessBlock"): "s3:PutBucketPublicAccessBlock",
}
PREFIXES = {"emr": "elasticmapreduce"}

# Parameters that name the resource of a request, and its kind; the first match counts.
RESOURCES = {
    ("ec2", "GroupId"): "security-group",
    ("ec2", "InstanceIds"): "instance",
    ("ec2", "KeyName"): "key-pair",
    ("ec2", "SubnetIds"): "subnet",
    ("ec2", "VpcId"): "vpc",
    ("emr", "ClusterId"): "cluster",
    ("emr", "JobFlowId"): "cluster",
    ("emr", "JobFlowIds"): "cluster",
    ("iam", "InstanceProfileName"): "instance-profile",
    ("iam", "RoleName"): "role",
}


def action(service: str, operation: str) -> str:
    """Return the IAM action of an operation of a service."""
    return ACTIONS.get((service, operation), f"{PREFIXES.get(service, service)}:{operation}")


def enforce(patch: pytest.MonkeyPatch, policy: dict[str, Any]) -> None:
    """Deny, as IAM does, every request of this process that a policy does not allow; moto allows all.

    The resource of a request is taken from ``RESOURCES``. Without a match, only the action is checked.
    """
    for client in (botocore.client.BaseClient, aiobotocore.client.AioBaseClient):

        def enforced(self: Any, operation: str, parameters: dict[str, Any], make: Any = client._make_api_call) -> Any:
            service = self.meta.service_model.service_name
            for arn, tags in _resources(service, self.meta.region_name, parameters) or [(None, {})]:
                context = {f"{PREFIXES.get(service, service)}:ResourceTag/{key}": value for key, value in tags.items()}
                if not _allows(policy, action(service, operation), arn, context | _request_tags(service, parameters)):
                    message = f"not authorized to perform {action(service, operation)} on {arn}"
                    raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, operation)
            return make(self, operation, parameters)

        patch.setattr(client, "_make_api_call", enforced)


def _allows(policy: dict[str, Any], name: str, arn: str | None, context: dict[str, str]) -> bool:
    return any(
        name in statement["Action"]
        and (arn is None or any(fnmatchcase(arn, pattern) for pattern in _listed(statement["Resource"])))
        and all(
            key in context and any(fnmatchcase(context[key], pattern) for pattern in _listed(values))
            for wanted in statement.get("Condition", {}).values()
            for key, values in wanted.items()
        )
        for statement in policy["Statement"]
    )


def _resources(service: str, region: str, parameters: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the ARN and the tags of each resource that a request names."""
    if service == "s3":
        key = f"/{parameters['Key']}" if "Key" in parameters else ""
        return [(f"arn:aws:s3:::{parameters['Bucket']}{key}", {})]
    matches = [name for owner, name in RESOURCES if owner == service and name in parameters]
    if not matches:
        return []
    where = f"arn:aws:{PREFIXES.get(service, service)}:{'' if service == 'iam' else region}:{DEFAULT_ACCOUNT_ID}"
    kind = RESOURCES[service, matches[0]]
    names = _listed(parameters[matches[0]])
    return [(name if name.startswith("arn:") else f"{where}:{kind}/{name}", _tags(name)) for name in names]


def _request_tags(service: str, parameters: dict[str, Any]) -> dict[str, str]:
    if service != "emr":
        return {}
    return {f"elasticmapreduce:RequestTag/{tag['Key']}": tag["Value"] for tag in parameters.get("Tags", ())}


def _tags(name: str) -> dict[str, str]:
    """Return moto's tags of an EC2 resource or an EMR cluster in any region."""
    found: dict[str, str] = {}
    for ec2 in ec2_backends[DEFAULT_ACCOUNT_ID].values():
        found |= ec2.tags.get(name, {})
    for emr in emr_backends[DEFAULT_ACCOUNT_ID].values():
        if name in emr.clusters:
            found |= {tag["Key"]: tag["Value"] for tag in emr.clusters[name].tags}
    return found


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
