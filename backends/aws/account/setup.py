"""What an account needs once: a bucket, roles, security groups, tags on subnets. ``fruits cluster init``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.aws.account.clients import MANAGED, SETUP, TAG, Account, explained
from backends.aws.account.roles import (
    INSTANCE_PROFILE,
    NODE_ROLE,
    NODES,
    SERVICE_POLICY,
    SERVICE_ROLE,
    bucket_policy,
    key_arn,
    node_policy,
    service_policy,
    trust,
)
from backends.aws.account.vpc import GROUPS, find_place, groups_in
from fruits.clusters.clouds import AwsCluster
from fruits.errors import SettingsError
from fruits.storage.s3.settings import S3Settings

__all__ = ["Thing", "needed"]

PLAIN = S3Settings()
ABORT_DAYS = 1  # after which the parts of an upload that was never finished are removed


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that the account needs.

    Attributes
    ----------
    words : str
        What it is.
    there : bool
        Whether it is there already; its settings are put right all the same.
    make : callable
        Makes it, or puts it right; does no harm where nothing is to be done.
    """

    words: str
    there: bool
    make: Callable[[], None]


def needed(
    account: Account,
    settings: AwsCluster,
    bucket: str,
    *,
    also_read: Sequence[str] = (),
    key_pair: str | None = None,
    s3: S3Settings = PLAIN,
) -> Iterator[Thing]:
    """Yield what the account needs, in the order in which it has to be made; nothing is made before it is asked for.

    Parameters
    ----------
    account : Account
    settings : AwsCluster
        Whose subnet is used.
    bucket : str
        Without ``s3://``.
    also_read : sequence of str
        Other buckets that the nodes may read.
    key_pair : str, optional
        The name of a key pair to make; its key is written to ``NAME.pem`` in the current folder, for its owner alone.
    s3 : S3Settings, optional
        What new files are encrypted with: a new bucket is told so, and the nodes may use the key.
    """
    key = key_arn(s3)
    number = account.identity()
    yield _bucket(account, bucket, s3)
    yield _role(
        account,
        SERVICE_ROLE,
        trust("elasticmapreduce.amazonaws.com", number),
        {"pass-node-role": service_policy(number)},
        SERVICE_POLICY,
    )
    yield _role(account, NODE_ROLE, trust(NODES), {f"bucket-{bucket}": node_policy(bucket, also_read, key)})
    yield _profile(account)
    yield from _network(account, settings)
    if key_pair is not None:
        yield _key_pair(account, key_pair)


def _bucket(account: Account, name: str, settings: S3Settings) -> Thing:
    s3 = account.client("s3")
    region = str(s3.meta.region_name)

    def make() -> None:
        with explained(f"make the bucket {name}"):
            if not there:
                where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                s3.create_bucket(Bucket=name, **where)
                s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": _tags()})
            s3.put_public_access_block(
                Bucket=name,
                PublicAccessBlockConfiguration={
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                },
            )
            if not there:
                # All that is written without a word of it too: the wheelhouse, EMR's logs, notebooks.
                rule: dict[str, Any] = {"SSEAlgorithm": settings.encryption or "AES256"}
                if settings.kms_key is not None:
                    rule["KMSMasterKeyID"] = settings.kms_key
                rules = [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": "KMSMasterKeyID" in rule}]
                s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
                s3.put_bucket_lifecycle_configuration(
                    Bucket=name,
                    LifecycleConfiguration={
                        "Rules": [
                            {
                                "ID": "fruits-unfinished-uploads",
                                "Status": "Enabled",
                                "Filter": {"Prefix": ""},
                                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
                            }
                        ]
                    },
                )
            # One that is reached without TLS is a stand-in on this machine, and would shut us out too.
            if str(s3.meta.endpoint_url).startswith("https://") and not _has_policy(s3, name):
                s3.put_bucket_policy(Bucket=name, Policy=json.dumps(bucket_policy(name)))

    with explained(f"look up the bucket {name}"):
        there = _is_there(lambda: s3.head_bucket(Bucket=name), "404", "NoSuchBucket")
    return Thing(f"bucket s3://{name} in {region}: private, encrypted, TLS only", there, make)


def _has_policy(s3: Any, bucket: str) -> bool:
    return _is_there(lambda: s3.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy")


def _role(
    account: Account,
    name: str,
    trusted: dict[str, Any],
    policies: dict[str, dict[str, Any]],
    managed: str | None = None,
) -> Thing:
    iam = account.client("iam")

    def make() -> None:
        with explained(f"make the role {name}"):
            if not there:
                iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trusted), Tags=_tags())
            for policy, document in policies.items():
                iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
            if managed is not None:
                iam.attach_role_policy(RoleName=name, PolicyArn=managed)

    with explained(f"look up the role {name}"):
        there = _is_there(lambda: iam.get_role(RoleName=name), "NoSuchEntity")
    named = [*policies, *([managed.rpartition("/")[2]] if managed else [])]
    return Thing(f"role {name}, with {' and '.join(named)}", there, make)


def _profile(account: Account) -> Thing:
    iam = account.client("iam")

    def make() -> None:
        with explained(f"make the instance profile {INSTANCE_PROFILE}"):
            if not there:
                iam.create_instance_profile(InstanceProfileName=INSTANCE_PROFILE, Tags=_tags())
            found = iam.get_instance_profile(InstanceProfileName=INSTANCE_PROFILE)["InstanceProfile"]
            if not found["Roles"]:
                iam.add_role_to_instance_profile(InstanceProfileName=INSTANCE_PROFILE, RoleName=NODE_ROLE)

    with explained(f"look up the instance profile {INSTANCE_PROFILE}"):
        there = _is_there(lambda: iam.get_instance_profile(InstanceProfileName=INSTANCE_PROFILE), "NoSuchEntity")
    return Thing(f"instance profile {INSTANCE_PROFILE}", there, make)


def _network(account: Account, settings: AwsCluster) -> Iterator[Thing]:
    """Yield the tags that let EMR use the subnets, and the security groups; what admits others is never added."""
    ec2 = account.client("ec2")
    place = find_place(account, settings)
    with explained("look up the subnets"):
        found = ec2.describe_subnets(SubnetIds=list(place.subnets))["Subnets"]
    untagged = [
        subnet["SubnetId"]
        for subnet in found
        if MANAGED not in {(tag["Key"], tag["Value"]) for tag in subnet.get("Tags", ())}
    ]

    def tag() -> None:
        if untagged:
            with explained("tag the subnets"):
                ec2.create_tags(Resources=untagged, Tags=[{"Key": MANAGED[0], "Value": MANAGED[1]}])

    yield Thing(f"tag {MANAGED[0]} on {', '.join(place.subnets)}", not untagged, tag)
    groups = groups_in(account, place.vpc)
    for name in list(GROUPS) if place.private else list(GROUPS)[:2]:

        def make(name: str = name) -> None:
            if name not in groups:
                with explained(f"make the security group {name}"):
                    ec2.create_security_group(
                        GroupName=name,
                        Description=GROUPS[name],
                        VpcId=place.vpc,
                        TagSpecifications=[{"ResourceType": "security-group", "Tags": _tags()}],
                    )

        yield Thing(f"security group {name} in {place.vpc}, which admits nothing from outside", name in groups, make)


def _key_pair(account: Account, name: str) -> Thing:
    ec2 = account.client("ec2")
    path = Path(f"{name}.pem")
    with explained("look up the key pairs"):
        there = bool(ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}])["KeyPairs"])

    def make() -> None:
        if there:
            return
        # AWS gives the key once: its file is there before it, and where it cannot be kept the pair goes too.
        try:
            path.touch(0o600, exist_ok=False)
        except OSError as error:
            raise SettingsError(
                f"{path}: {error.strerror}. The key of the pair {name} is written there, into a new file. Move away "
                "what is there, give another name, or go to a folder that can be written."
            ) from error
        try:
            with explained(f"make the key pair {name}"):
                made = ec2.create_key_pair(
                    KeyName=name, TagSpecifications=[{"ResourceType": "key-pair", "Tags": _tags()}], KeyType="ed25519"
                )
        except BaseException:
            path.unlink()
            raise
        try:
            path.write_text(made["KeyMaterial"], encoding="ascii")
        except OSError as error:
            with explained(f"delete the key pair {name}, whose key could not be written to {path}"):
                ec2.delete_key_pair(KeyName=name)
            path.unlink()
            raise SettingsError(
                f"{path}: {error.strerror}. The key of the pair {name} could not be written there, and the pair was "
                "deleted again. Go to a folder that can be written, and start the same command."
            ) from error

    where = f"its key in {path}" if path.exists() or not there else f"whose key is not in this folder as {path}"
    return Thing(f"key pair {name}, {where}", there, make)


def _is_there(look: Callable[[], Any], *absent: str) -> bool:
    """Tell whether something is there; `absent` are the codes that say it is not."""
    from botocore.exceptions import ClientError

    try:
        look()
    except ClientError as error:
        if str(error.response["Error"]["Code"]) in absent:
            return False
        raise
    return True


def _tags() -> list[dict[str, str]]:
    return [{"Key": TAG, "Value": SETUP}, {"Key": MANAGED[0], "Value": MANAGED[1]}]
