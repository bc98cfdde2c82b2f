"""Who may do what: the least that the user, EMR, and the nodes need, each policy naming its bucket and its actions.

``fruits cluster init`` makes the roles; ``fruits cluster render`` writes the policies to files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from backends.aws.account.clients import MANAGED, TAG
from fruits.errors import SettingsError
from fruits.storage.s3.settings import S3Settings

__all__ = [
    "INSTANCE_PROFILE",
    "NODES",
    "NODE_ROLE",
    "SERVICE_POLICY",
    "SERVICE_ROLE",
    "bucket_policy",
    "key_arn",
    "node_policy",
    "service_policy",
    "trust",
    "user_policy",
]

NODES = "ec2.amazonaws.com"
SERVICE_ROLE = "fruits-emr-service"  # what EMR does in our name
NODE_ROLE = INSTANCE_PROFILE = "fruits-node"  # what programs on a node may do
# AWS keeps it up to date; it works only on what carries the tag `account.MANAGED`.
SERVICE_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
KEY_ARN = re.compile(r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")

Policy = dict[str, Any]


def trust(service: str, account: str | None = None) -> Policy:
    """Return who may take a role: services of AWS, and of all their customers only for us.

    Parameters
    ----------
    service : str
        Such as ``ec2.amazonaws.com``.
    account : str, optional
        The number of our account, for services that act in our name from elsewhere.
    """
    statement: Policy = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    if account is not None:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
    return _policy(statement)


def key_arn(s3: S3Settings) -> str | None:
    """Return the key of KMS that a policy has to allow; None where there is none, or it is the account's own for S3.

    Raises
    ------
    SettingsError
        The key is not given by its ARN.
    """
    if s3.kms_key is None or KEY_ARN.match(s3.kms_key):
        return s3.kms_key
    raise SettingsError(
        f"SSEKMSKeyId {s3.kms_key}: a policy names a key by its ARN alone. "
        "Give it as arn:aws:kms:REGION:ACCOUNT:key/ID."
    )


def node_policy(bucket: str, also_read: Sequence[str] = (), key: str | None = None) -> Policy:
    """Return what programs on a node may do: read and write one bucket, read others, and be logged in to.

    Parameters
    ----------
    bucket : str
        The bucket of the output, the logs and the wheelhouse.
    also_read : sequence of str
        Other buckets, where images lie.
    key : str, optional
        The ARN of the key of KMS that encrypts what is written.
    """
    listing = ["s3:ListBucket", "s3:GetBucketLocation"]
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    statements = [
        _allow("ListBucket", [*listing, "s3:ListBucketMultipartUploads"], _bucket(bucket)),
        _allow("UseObjects", objects, f"{_bucket(bucket)}/*"),
        # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
        _allow(
            "SessionManager",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            "*",
        ),
    ]
    if also_read:
        statements += [
            _allow("ListOthers", listing, [_bucket(name) for name in also_read]),
            _allow("ReadOthers", ["s3:GetObject"], [f"{_bucket(name)}/*" for name in also_read]),
        ]
    if key is not None:
        statements.append(_use_key(key))
    return _policy(*statements)


def service_policy(account: str) -> Policy:
    """Return what EMR may do besides :data:`SERVICE_POLICY`: give the nodes their role, and no other."""
    passing = _allow("PassNodeRole", ["iam:PassRole"], f"arn:aws:iam::{account}:role/{NODE_ROLE}")
    return _policy(passing | {"Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}})


def bucket_policy(bucket: str) -> Policy:
    """Return the policy of the bucket itself: nothing goes in or out without TLS."""
    return _policy(
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [_bucket(bucket), f"{_bucket(bucket)}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def user_policy(bucket: str, account: str, region: str, key: str | None = None) -> Policy:
    """Return what somebody needs for every ``fruits cluster`` command, and for jobs on a cluster.

    Parameters
    ----------
    bucket : str
    account : str
        The number of the account.
    region : str
        Where clusters are made.
    key : str, optional
        The ARN of the key of KMS that encrypts what is written.
    """
    roles = [f"arn:aws:iam::{account}:role/{name}" for name in (SERVICE_ROLE, NODE_ROLE)]
    profile = f"arn:aws:iam::{account}:instance-profile/{INSTANCE_PROFILE}"
    clusters = f"arn:aws:elasticmapreduce:{region}:{account}:cluster/*"
    ours = {"Condition": {"StringLike": {f"elasticmapreduce:ResourceTag/{TAG}": "*"}}}
    services = ["elasticmapreduce.amazonaws.com*", NODES]

    def ec2(*kinds: str) -> list[str]:
        return [f"arn:aws:ec2:{region}:{account}:{kind}/*" for kind in kinds]

    asked = {"Condition": {"StringEquals": {f"elasticmapreduce:RequestTag/{MANAGED[0]}": MANAGED[1]}}}
    return _policy(
        _allow("WhoAmI", ["sts:GetCallerIdentity"], "*"),
        _allow(
            "MakeBucket",
            [
                "s3:CreateBucket",
                "s3:GetBucketLocation",
                "s3:GetBucketPolicy",
                "s3:ListBucket",
                "s3:ListBucketMultipartUploads",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutBucketTagging",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
            ],
            _bucket(bucket),
        ),
        _allow(
            "UseObjects",
            ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            f"{_bucket(bucket)}/*",
        ),
        _allow(
            "MakeRoles",
            [
                "iam:AttachRolePolicy",
                "iam:CreateRole",
                "iam:GetRole",
                "iam:PutRolePolicy",
                "iam:TagRole",
            ],
            roles,
        ),
        _allow(
            "MakeProfile",
            [
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:TagInstanceProfile",
            ],
            profile,
        ),
        _allow("PassRoles", ["iam:PassRole"], roles) | {"Condition": {"StringLike": {"iam:PassedToService": services}}},
        _allow("StartClusters", ["elasticmapreduce:RunJobFlow", "elasticmapreduce:AddTags"], "*") | asked,
        _allow("FindClusters", ["elasticmapreduce:ListClusters"], "*"),
        _allow(
            "UseOurClusters",
            [
                "elasticmapreduce:AddJobFlowSteps",
                "elasticmapreduce:DescribeCluster",
                "elasticmapreduce:DescribeStep",
                "elasticmapreduce:ListInstances",
                "elasticmapreduce:ListSteps",
                "elasticmapreduce:TerminateJobFlows",
            ],
            clusters,
        )
        | ours,
        _allow(
            "SeeNetwork",
            [
                "ec2:DescribeImages",
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeKeyPairs",
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
            ],
            "*",
        ),
        _allow(
            "MakeAndTag",
            ["ec2:CreateKeyPair", "ec2:CreateSecurityGroup", "ec2:CreateTags"],
            ec2("instance", "key-pair", "network-interface", "security-group", "subnet", "volume", "vpc"),
        ),
        _allow(
            "StartMachines",
            ["ec2:RunInstances"],
            [
                *ec2("instance", "key-pair", "network-interface", "security-group", "subnet", "volume"),
                f"arn:aws:ec2:{region}::image/*",
            ],
        ),
        _allow(
            "UseAndEndOurs",
            [
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:DeleteKeyPair",
                "ec2:DeleteSecurityGroup",
                "ec2:TerminateInstances",
            ],
            ec2("instance", "key-pair", "security-group"),
        )
        | {"Condition": {"StringLike": {f"ec2:ResourceTag/{TAG}": "*"}}},
        *([] if key is None else [_use_key(key)]),
    )


def _policy(*statements: Policy) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(name: str, actions: Sequence[str], resources: str | Sequence[str]) -> Policy:
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resources}


def _use_key(key: str) -> Policy:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html: parts of an upload are read again
    return _allow("UseKey", ["kms:Decrypt", "kms:GenerateDataKey"], key)


def _bucket(name: str) -> str:
    return f"arn:aws:s3:::{name}"
