"""IAM: the documents of the template, their evaluation, and its enforcement, which moto does not do."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import aiobotocore.client
import botocore.client
import pytest
import yaml
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.emr.models import emr_backends

from backends.aws.account.stack import template

__all__ = ["action", "allows", "document", "enforce", "resources", "statements"]

# Actions whose names differ from their requests: https://docs.aws.amazon.com/service-authorization/latest/reference/
ACTIONS = {
    ("s3", "CreateMultipartUpload"): "s3:PutObject",
    ("s3", "DeleteObjects"): "s3:DeleteObject",
    ("s3", "HeadBucket"): "s3:ListBucket",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListMultipartUploads"): "s3:ListBucketMultipartUploads",
    ("s3", "UploadPart"): "s3:PutObject",
    ("s3", "CompleteMultipartUpload"): "s3:PutObject",
}
PREFIXES = {"emr": "elasticmapreduce", "service-quotas": "servicequotas"}
BUCKET, REGION, VPC = "my-fruits", "eu-west-3", "vpc-1"

# Parameters that name the resource of a request, and its kind; the first match counts.
RESOURCES = {
    ("ec2", "GroupId"): "security-group",
    ("ec2", "InstanceIds"): "instance",
    ("ec2", "VpcId"): "vpc",
    ("emr", "ClusterId"): "cluster",
    ("emr", "JobFlowId"): "cluster",
    ("emr", "JobFlowIds"): "cluster",
    ("emr", "ResourceId"): "cluster",
}


class _Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: {suffix: _plain(loader, node)})


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


VALUES = {
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::AccountId": DEFAULT_ACCOUNT_ID,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{DEFAULT_ACCOUNT_ID}:stack/fruits/1",
    "Bucket": BUCKET,
    "Vpc": VPC,
}
ROLES = {"ServiceRole": "emr-service", "NodeRole": "node", "ServerlessRole": "serverless"}


def resources() -> dict[str, Any]:
    """Return the resources of the template, with the account of moto, a region and a bucket filled in."""
    found: dict[str, Any] = _resolved(yaml.load(template(), _Loader))["Resources"]
    return found


def _resolved(value: Any) -> Any:
    match value:
        case {"Sub": str(text)}:
            text = text.replace("${!*}", "[*]")  # the character, for fnmatch
            return re.sub(r"\$\{(!?)([\w:]+)\}", lambda m: f"${{{m[2]}}}" if m[1] else VALUES[m[2]], text)
        case {"Ref": name} if name in VALUES:
            return VALUES[name]
        case {"GetAtt": str(name)} if name.partition(".")[0] in ROLES:
            return f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/fruits-{ROLES[name.partition('.')[0]]}-{REGION}"
        case {"GetAtt": name}:
            return name
        case dict():
            return {key: _resolved(each) for key, each in value.items()}
        case list():
            return [_resolved(each) for each in value]
    return value


def document(*names: str) -> dict[str, Any]:
    """Return one policy with the statements of policies and roles of the template."""
    return {"Statement": [each for name in names for each in statements(name)]}


def statements(name: str) -> list[dict[str, Any]]:
    """Return the statements of a policy of the template, or the inline ones of a role."""
    properties = resources()[name]["Properties"]
    if "PolicyDocument" in properties:
        return list(properties["PolicyDocument"]["Statement"])
    return [each for policy in properties["Policies"] for each in policy["PolicyDocument"]["Statement"]]


def action(service: str, operation: str) -> str:
    """Return the IAM action of an operation of a service."""
    return ACTIONS.get((service, operation), f"{PREFIXES.get(service, service)}:{operation}")


def allows(policy: dict[str, Any], name: str, arn: str | None, context: dict[str, str] | None = None) -> bool:
    """Evaluate a policy as IAM does: an explicit denial wins; a condition on an absent key is false.

    Without `arn`, the action alone is compared, as for an operation without a resource of its own.
    """
    matching = [each for each in policy["Statement"] if _matches(each, name, arn, context or {})]
    return any(each["Effect"] == "Allow" for each in matching) and all(each["Effect"] == "Allow" for each in matching)


def _matches(statement: dict[str, Any], name: str, arn: str | None, context: dict[str, str]) -> bool:
    return (
        any(fnmatchcase(name, pattern) for pattern in _listed(statement["Action"]))
        and (arn is None or any(fnmatchcase(arn, pattern) for pattern in _listed(statement["Resource"])))
        and all(
            _holds(operator, context.get(key), _listed(values))
            for operator, wanted in statement.get("Condition", {}).items()
            for key, values in wanted.items()
        )
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    match operator:
        case "StringNotEquals":
            return value not in wanted
        case "StringEquals" | "Bool":
            return value in wanted
        case "StringLike" | "ArnLike":
            return value is not None and any(fnmatchcase(value, pattern) for pattern in wanted)
    raise NotImplementedError(operator)


def enforce(patch: pytest.MonkeyPatch, policy: dict[str, Any]) -> None:
    """Deny, as IAM does, every request of this process that a policy does not allow; moto allows all.

    The resource of a request is taken from ``RESOURCES``. Without a match, only the action is checked.
    """
    for client in (botocore.client.BaseClient, aiobotocore.client.AioBaseClient):

        def enforced(self: Any, operation: str, parameters: dict[str, Any], make: Any = client._make_api_call) -> Any:
            service = self.meta.service_model.service_name
            named = _named(service, self.meta.region_name, parameters)
            for arn, tags in named or [(None, {})]:
                context = {f"{PREFIXES.get(service, service)}:ResourceTag/{key}": value for key, value in tags.items()}
                context |= {f"aws:ResourceTag/{key}": value for key, value in tags.items()}
                if not allows(policy, action(service, operation), arn, context | _request_tags(service, parameters)):
                    message = f"not authorized to perform {action(service, operation)} on {arn}"
                    raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, operation)
            return make(self, operation, parameters)

        patch.setattr(client, "_make_api_call", enforced)


def _named(service: str, region: str, parameters: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the ARN and the tags of each resource that a request names."""
    if service == "s3":
        key = f"/{parameters['Key']}" if "Key" in parameters else ""
        return [(f"arn:aws:s3:::{parameters['Bucket']}{key}", {})]
    if service == "emr-serverless" and "applicationId" in parameters:
        arn = f"arn:aws:emr-serverless:{region}:{DEFAULT_ACCOUNT_ID}:/applications/{parameters['applicationId']}"
        return [(arn, {"fruits": "ours"})]  # moto's own applications are those of the test
    matches = [name for owner, name in RESOURCES if owner == service and name in parameters]
    if not matches:
        return []
    where = f"arn:aws:{PREFIXES.get(service, service)}:{region}:{DEFAULT_ACCOUNT_ID}"
    kind = RESOURCES[service, matches[0]]
    names = _listed(parameters[matches[0]])
    return [(name if name.startswith("arn:") else f"{where}:{kind}/{name}", _tags(name)) for name in names]


def _request_tags(service: str, parameters: dict[str, Any]) -> dict[str, str]:
    if service == "emr":
        return {f"elasticmapreduce:RequestTag/{tag['Key']}": tag["Value"] for tag in parameters.get("Tags", ())}
    if service == "emr-serverless":
        return {f"aws:RequestTag/{key}": value for key, value in parameters.get("tags", {}).items()}
    if "AWSServiceName" in parameters:
        return {"iam:AWSServiceName": parameters["AWSServiceName"]}
    specified = [tag for each in parameters.get("TagSpecifications", [parameters]) for tag in each.get("Tags", ())]
    return {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in specified}


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
