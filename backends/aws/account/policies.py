"""IAM policies with the least permissions for the user, EMR and the nodes. Each names its bucket and its actions.

``fruits cluster init`` creates the roles; ``fruits cluster render`` writes the policies to files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from backends.aws.account.tags import MANAGED, TAG
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
SERVICE_ROLE = "fruits-emr-service"  # of EMR itself
NODE_ROLE = INSTANCE_PROFILE = "fruits-node"  # of programs on a node
# Maintained by AWS; it covers only resources with the tag MANAGED.
SERVICE_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
KEY_ARN = re.compile(r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")

Policy = dict[str, Any]


def trust(service: str, account: str | None = None) -> Policy:
    """Return the trust policy of a role: the AWS service that may assume it.

    Parameters
    ----------
    service : str
        Such as ``ec2.amazonaws.com``.
    account : str, optional
        The account number; the service may assume the role only on behalf of this account.
    """
    statement: Policy = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    if account is not None:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
    return _policy(statement)


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


def node_policy(bucket: str, also_read: Sequence[str] = (), key: str | None = None) -> Policy:
    """Return the policy of the nodes: read and write one bucket, read others, and accept sessions.

    Parameters
    ----------
    bucket : str
        The bucket of the output, the logs and the wheelhouse.
    also_read : sequence of str
        Other buckets, with images.
    key : str, optional
        The ARN of the KMS key that encrypts new objects.
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
    """Return the policy of EMR in addition to :data:`SERVICE_POLICY`: give the nodes their role, and no other role."""
    passing = _allow("PassNodeRole", ["iam:PassRole"], f"arn:aws:iam::{account}:role/{NODE_ROLE}")
    return _policy(passing | {"Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}})


def bucket_policy(bucket: str) -> Policy:
    """Return the policy of the bucket: reject every request without TLS."""
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
    """Return the policy of a user of every ``fruits cluster`` command, and of jobs on a cluster.

    Parameters
    ----------
    bucket : str
    account : str
        The account number.
    region : str
        The region of the clusters.
    key : str, optional
        The ARN of the KMS key that encrypts new objects.
    """
    return _policy(
        _allow("WhoAmI", ["sts:GetCallerIdentity"], "*"),
        *_user_s3(bucket),
        *_user_iam(account),
        *_user_emr(account, region),
        *_user_ec2(account, region),
        *([] if key is None else [_use_key(key)]),
    )


def _user_s3(bucket: str) -> list[Policy]:
    return [
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
    ]


def _user_iam(account: str) -> list[Policy]:
    roles = [f"arn:aws:iam::{account}:role/{name}" for name in (SERVICE_ROLE, NODE_ROLE)]
    profile = f"arn:aws:iam::{account}:instance-profile/{INSTANCE_PROFILE}"
    role_actions = ["iam:AttachRolePolicy", "iam:CreateRole", "iam:GetRole", "iam:PutRolePolicy", "iam:TagRole"]
    profile_actions = [
        "iam:AddRoleToInstanceProfile",
        "iam:CreateInstanceProfile",
        "iam:GetInstanceProfile",
        "iam:TagInstanceProfile",
    ]
    services = ["elasticmapreduce.amazonaws.com*", NODES]
    return [
        _allow("MakeRoles", role_actions, roles),
        _allow("MakeProfile", profile_actions, profile),
        _allow("PassRoles", ["iam:PassRole"], roles) | {"Condition": {"StringLike": {"iam:PassedToService": services}}},
    ]


def _user_emr(account: str, region: str) -> list[Policy]:
    requested = {"Condition": {"StringEquals": {f"elasticmapreduce:RequestTag/{MANAGED[0]}": MANAGED[1]}}}
    tagged = {"Condition": {"StringLike": {f"elasticmapreduce:ResourceTag/{TAG}": "*"}}}
    actions = [
        "elasticmapreduce:AddJobFlowSteps",
        "elasticmapreduce:DescribeCluster",
        "elasticmapreduce:DescribeStep",
        "elasticmapreduce:ListInstances",
        "elasticmapreduce:ListSteps",
        "elasticmapreduce:TerminateJobFlows",
    ]
    clusters = f"arn:aws:elasticmapreduce:{region}:{account}:cluster/*"
    return [
        _allow("StartClusters", ["elasticmapreduce:RunJobFlow", "elasticmapreduce:AddTags"], "*") | requested,
        _allow("FindClusters", ["elasticmapreduce:ListClusters"], "*"),
        _allow("UseOurClusters", actions, clusters) | tagged,
    ]


def _user_ec2(account: str, region: str) -> list[Policy]:
    def arns(*kinds: str) -> list[str]:
        return [f"arn:aws:ec2:{region}:{account}:{kind}/*" for kind in kinds]

    return [
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
            arns("instance", "key-pair", "network-interface", "security-group", "subnet", "volume", "vpc"),
        ),
        _allow(
            "StartMachines",
            ["ec2:RunInstances"],
            [
                *arns("instance", "key-pair", "network-interface", "security-group", "subnet", "volume"),
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
            arns("instance", "key-pair", "security-group"),
        )
        | {"Condition": {"StringLike": {f"ec2:ResourceTag/{TAG}": "*"}}},
    ]


def _policy(*statements: Policy) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(name: str, actions: Sequence[str], resources: str | Sequence[str]) -> Policy:
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resources}


def _use_key(key: str) -> Policy:
    # S3 decrypts the parts of a multipart upload: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
    return _allow("UseKey", ["kms:Decrypt", "kms:GenerateDataKey"], key)


def _bucket(name: str) -> str:
    return f"arn:aws:s3:::{name}"
