"""Prerequisites in the account: a bucket, roles, security groups and subnet tags. ``fruits cluster init``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.policies import (
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
from backends.aws.account.tags import MANAGED, SETUP, aws_tags, parse_tags, tags_of
from backends.aws.account.vpc import GROUPS, find_groups, find_subnets, groups_needed
from fruits.clusters.clouds import AwsCluster
from fruits.errors import SettingsError
from fruits.storage.s3.settings import S3Settings

__all__ = ["Prerequisite", "prerequisites"]

DEFAULT_S3 = S3Settings()
ABORT_DAYS = 1  # after which S3 removes the parts of unfinished uploads
TAGS = aws_tags(tags_of(SETUP))


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """A resource that the account needs.

    Attributes
    ----------
    description : str
    exists : bool
    create : callable
        Creates the resource, or corrects the settings of an existing one.
    """

    description: str
    exists: bool
    create: Callable[[], None]


def prerequisites(
    account: Account,
    settings: AwsCluster,
    bucket: str,
    *,
    also_read: Sequence[str] = (),
    key_pair: str | None = None,
    s3: S3Settings = DEFAULT_S3,
) -> Iterator[Prerequisite]:
    """Yield the prerequisites in the order in which they must be created. Each is created by its ``create``.

    Parameters
    ----------
    account : Account
    settings : AwsCluster
        Names the subnet.
    bucket : str
        Without ``s3://``.
    also_read : sequence of str
        Other buckets that the nodes may read.
    key_pair : str, optional
        The name of a key pair. Its key is written to ``NAME.pem`` in the current folder, readable by the owner only.
    s3 : S3Settings, optional
        The encryption of new objects, which becomes the default of a new bucket; the nodes may use its key.
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


def _bucket(account: Account, name: str, settings: S3Settings) -> Prerequisite:
    s3 = account.client("s3")
    region = str(s3.meta.region_name)

    def create() -> None:
        with translated_errors(f"create the bucket {name}"):
            if not exists:
                where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                s3.create_bucket(Bucket=name, **where)
                s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": TAGS})
            s3.put_public_access_block(
                Bucket=name,
                PublicAccessBlockConfiguration={
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                },
            )
            if not exists:
                _configure_bucket(s3, name, settings)
            # An endpoint without TLS is a local stand-in for S3, which this policy would lock.
            if str(s3.meta.endpoint_url).startswith("https://") and not _has_policy(s3, name):
                s3.put_bucket_policy(Bucket=name, Policy=json.dumps(bucket_policy(name)))

    with translated_errors(f"look up the bucket {name}"):
        exists = _exists(lambda: s3.head_bucket(Bucket=name), "404", "NoSuchBucket")
    return Prerequisite(f"bucket s3://{name} in {region}: private, encrypted, TLS only", exists, create)


def _configure_bucket(s3: Any, name: str, settings: S3Settings) -> None:
    """Set the default encryption, which covers wheels, EMR's logs and notebooks too, and the clean-up of uploads."""
    encryption: dict[str, Any] = {"SSEAlgorithm": settings.encryption or "AES256"}
    if settings.kms_key is not None:
        encryption["KMSMasterKeyID"] = settings.kms_key
    rules = [{"ApplyServerSideEncryptionByDefault": encryption, "BucketKeyEnabled": settings.kms_key is not None}]
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


def _has_policy(s3: Any, bucket: str) -> bool:
    return _exists(lambda: s3.get_bucket_policy(Bucket=bucket), "NoSuchBucketPolicy")


def _role(
    account: Account,
    name: str,
    trusted: dict[str, Any],
    policies: dict[str, dict[str, Any]],
    managed: str | None = None,
) -> Prerequisite:
    iam = account.client("iam")

    def create() -> None:
        with translated_errors(f"create the role {name}"):
            if not exists:
                iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trusted), Tags=TAGS)
            for policy, document in policies.items():
                iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
            if managed is not None:
                iam.attach_role_policy(RoleName=name, PolicyArn=managed)

    with translated_errors(f"look up the role {name}"):
        exists = _exists(lambda: iam.get_role(RoleName=name), "NoSuchEntity")
    names = [*policies, *([managed.rpartition("/")[2]] if managed else [])]
    return Prerequisite(f"role {name}, with {' and '.join(names)}", exists, create)


def _profile(account: Account) -> Prerequisite:
    iam = account.client("iam")

    def create() -> None:
        with translated_errors(f"create the instance profile {INSTANCE_PROFILE}"):
            if not exists:
                iam.create_instance_profile(InstanceProfileName=INSTANCE_PROFILE, Tags=TAGS)
            profile = iam.get_instance_profile(InstanceProfileName=INSTANCE_PROFILE)["InstanceProfile"]
            if not profile["Roles"]:
                iam.add_role_to_instance_profile(InstanceProfileName=INSTANCE_PROFILE, RoleName=NODE_ROLE)

    with translated_errors(f"look up the instance profile {INSTANCE_PROFILE}"):
        exists = _exists(lambda: iam.get_instance_profile(InstanceProfileName=INSTANCE_PROFILE), "NoSuchEntity")
    return Prerequisite(f"instance profile {INSTANCE_PROFILE}", exists, create)


def _network(account: Account, settings: AwsCluster) -> Iterator[Prerequisite]:
    """Yield the subnet tags, without which EMR cannot use the subnets, and the security groups, without any rule."""
    ec2 = account.client("ec2")
    subnets = find_subnets(account, settings)
    with translated_errors("look up the subnets"):
        described = ec2.describe_subnets(SubnetIds=list(subnets.identifiers))["Subnets"]
    untagged = [subnet["SubnetId"] for subnet in described if MANAGED not in parse_tags(subnet.get("Tags", ())).items()]

    def tag() -> None:
        if untagged:
            with translated_errors("tag the subnets"):
                ec2.create_tags(Resources=untagged, Tags=[{"Key": MANAGED[0], "Value": MANAGED[1]}])

    yield Prerequisite(f"tag {MANAGED[0]} on {', '.join(subnets.identifiers)}", not untagged, tag)
    groups = find_groups(account, subnets.vpc)
    for name in groups_needed(subnets):

        def create(name: str = name) -> None:
            if name not in groups:
                with translated_errors(f"create the security group {name}"):
                    ec2.create_security_group(
                        GroupName=name,
                        Description=GROUPS[name],
                        VpcId=subnets.vpc,
                        TagSpecifications=[{"ResourceType": "security-group", "Tags": TAGS}],
                    )

        yield Prerequisite(
            f"security group {name} in {subnets.vpc}, which admits nothing from outside", name in groups, create
        )


def _key_pair(account: Account, name: str) -> Prerequisite:
    ec2 = account.client("ec2")
    path = Path(f"{name}.pem")
    with translated_errors("look up the key pairs"):
        exists = bool(ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}])["KeyPairs"])

    def create() -> None:
        if not exists:
            _create_key_pair(ec2, name, path)

    where = f"its key in {path}" if path.exists() or not exists else f"whose key is not in this folder as {path}"
    return Prerequisite(f"key pair {name}, {where}", exists, create)


def _create_key_pair(ec2: Any, name: str, path: Path) -> None:
    """Create a key pair and write its key. AWS returns the key once, so the file is created before the pair."""
    try:
        path.touch(0o600, exist_ok=False)
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}. The key of the pair {name} is written to this new file. Move the existing "
            "file, give another name, or change to a writable folder."
        ) from error
    try:
        with translated_errors(f"create the key pair {name}"):
            created = ec2.create_key_pair(
                KeyName=name, TagSpecifications=[{"ResourceType": "key-pair", "Tags": TAGS}], KeyType="ed25519"
            )
    except BaseException:
        path.unlink()
        raise
    try:
        path.write_text(created["KeyMaterial"], encoding="ascii")
    except OSError as error:
        with translated_errors(f"delete the key pair {name}, whose key could not be written to {path}"):
            ec2.delete_key_pair(KeyName=name)
        path.unlink()
        raise SettingsError(
            f"{path}: {error.strerror}. The key of the pair {name} could not be written, so the pair was deleted. "
            "Change to a writable folder and run the same command again."
        ) from error


def _exists(look_up: Callable[[], Any], *missing: str) -> bool:
    """Return False if a request fails with one of the error codes `missing`."""
    from botocore.exceptions import ClientError

    try:
        look_up()
    except ClientError as error:
        if str(error.response["Error"]["Code"]) in missing:
            return False
        raise
    return True
