"""Settings of a cluster's instances: image, subnet, security group, and the script that each instance runs."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Any

from backends.aws.account.clients import Account, split_address, translated_errors
from backends.aws.account.stack import find_installed
from backends.aws.account.subnets import Subnets, find_subnets
from backends.aws.account.tags import BUCKET_TAG, aws_tags, tags_of
from backends.aws.ec2.dask_node import PORT
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import DaskEc2Cluster
from fruits.errors import SettingsError

# Amazon Linux 2023 has its package repositories in S3, so a private subnet needs only an S3 endpoint.
IMAGE_OWNER, IMAGE_NAME = "amazon", "al2023-ami-2023.*-x86_64"
PUBLIC_ADDRESS_URL = "https://checkip.amazonaws.com"
SCRIPT = "dask_node.sh"


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Everything that is determined before the first instance is requested.

    Attributes
    ----------
    settings : DaskEc2Cluster
    name : str
        The name of the job; the tag of every resource.
    tags : dict of str to str
    common : dict
        The arguments of ``run_instances`` that all instances share.
    values : dict of str to str
        The values of the names in the start script. They contain no secret.
    """

    settings: DaskEc2Cluster
    name: str
    tags: dict[str, str]
    common: dict[str, Any]
    values: dict[str, str]

    def instance_name(self, role: str) -> str:
        """Return the name of the instances of a role: ``scheduler`` or ``worker``."""
        return f"{self.name}-{role}"

    def request(self, role: str, instance_type: str, count: int, script: str) -> dict[str, Any]:
        """Return the arguments of ``run_instances`` for at most `count` on-demand instances."""
        tags = aws_tags(self.tags | {"Name": self.instance_name(role)})
        kinds = ("instance", "volume", "network-interface")
        return self.common | {
            "InstanceType": instance_type,
            "MaxCount": count,
            "UserData": script,
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
        }

    def script(self, *arguments: object) -> str:
        """Return the start script of an instance, with the `arguments` of ``dask_node``."""
        values = self.values | {"ARGUMENTS": " ".join(map(str, arguments))}
        script = (files("backends.aws.ec2") / SCRIPT).read_text(encoding="utf-8")
        return re.sub("@([A-Z]+)@", lambda name: values[name[1]], script)


def prepare_launch(
    account: Account, settings: DaskEc2Cluster, name: str, staged: StagedFiles, secrets: str
) -> LaunchSettings:
    """Look up image, instance type and subnet, create the security group, and return the launch settings.

    Raises
    ------
    SettingsError
        The image or the subnet does not exist, or this machine could not reach the scheduler.
    """
    installed, subnets = find_installed(account), find_subnets(account, settings)
    client = client_address(account, settings, subnets)
    image = _find_image(account, settings)
    tags = tags_of(name, {**settings.tags, BUCKET_TAG: split_address(secrets)[0]})
    disk = {"VolumeSize": settings.disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnets.identifiers[0],
        "Groups": [create_security_group(account, subnets.vpc, name, client, tags)],
        "AssociatePublicIpAddress": settings.public,
    }
    common = {
        "ImageId": str(image["ImageId"]),
        "MinCount": 1,
        "IamInstanceProfile": {"Name": installed.node_profile},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "BlockDeviceMappings": [{"DeviceName": str(image["RootDeviceName"]), "Ebs": disk}],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "NetworkInterfaces": [interface],
    }
    if settings.key_pair is not None:
        common["KeyName"] = settings.key_pair
    values = {
        "MINUTES": str(settings.max_hours * 60),
        "REGION": installed.region,
        "PYTHON": staged.root.rpartition("-python")[2],
        "BOOTSTRAP": staged.bootstrap,
        "WHEELHOUSE": staged.wheelhouse,
        "SECRETS": secrets,
    }
    return LaunchSettings(settings, name, tags, common, values)


def _find_image(account: Account, settings: DaskEc2Cluster) -> dict[str, Any]:
    """Return the description of the image of the settings, or of the newest one."""
    newest: dict[str, Any] = {"Owners": [IMAGE_OWNER], "Filters": [{"Name": "name", "Values": [IMAGE_NAME]}]}
    query = {"ImageIds": [settings.image]} if settings.image else newest
    with translated_errors("look up the image"):
        images = account.client("ec2").describe_images(**query)["Images"]
    if not images:
        raise SettingsError(f"Image {settings.image or IMAGE_NAME} not found. Set `image` in cluster.yaml.")
    return max(images, key=lambda image: str(image["CreationDate"]))


def create_security_group(account: Account, vpc: str, name: str, client: str, tags: Mapping[str, str]) -> str:
    """Create a security group that admits its own members, and one client to the scheduler; return its identifier.

    Parameters
    ----------
    account : Account
    vpc, name : str
    client : str
        The client's addresses, such as ``203.0.113.7/32``.
    tags : mapping of str to str

    Raises
    ------
    SettingsError
        `client` is every address.
    """
    if ip_network(client).prefixlen == 0:
        raise SettingsError(f"client {client}: admits every address. Give the address of this machine only.")
    ec2 = account.client("ec2")
    with translated_errors("create the security group"):
        group = str(
            ec2.create_security_group(
                GroupName=f"fruits-{name}",
                Description="Fruits on Dask: the machines of one cluster, and its client",
                VpcId=vpc,
                TagSpecifications=[{"ResourceType": "security-group", "Tags": aws_tags(tags)}],
            )["GroupId"]
        )
        itself = [{"GroupId": group, "Description": "the cluster"}]
        only_client = [{"CidrIp": client, "Description": "the client"}]
        ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": itself},
                {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": only_client},
            ],
        )
    return group


def client_address(account: Account, settings: DaskEc2Cluster, subnets: Subnets) -> str:
    """Return the addresses that may connect to the scheduler.

    Raises
    ------
    SettingsError
        This machine cannot reach the scheduler; found before anything is started.
    """
    if settings.public and subnets.private:
        raise SettingsError(
            f"public: true, but the subnet {subnets.identifiers[0]} has no route to the internet. Set `subnet` to a "
            "public one, or run the command inside of the VPC, with public: false."
        )
    if settings.client is not None:
        return settings.client
    if settings.public:
        try:
            with urllib.request.urlopen(PUBLIC_ADDRESS_URL, timeout=10) as answer:  # nosec B310  # a constant, https
                return f"{answer.read().decode().strip()}/32"
        except OSError as error:
            raise SettingsError(
                f"Could not look up the public address of this machine at {PUBLIC_ADDRESS_URL} ({error}). "
                "Set `client` in cluster.yaml, such as 203.0.113.7/32."
            ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(ip_network(subnets.cidr)[1]), PORT))  # UDP: selects the route, sends nothing
        own = str(probe.getsockname()[0])
    with translated_errors("look up the VPC"):
        (vpc,) = account.client("ec2").describe_vpcs(VpcIds=[subnets.vpc])["Vpcs"]
    ranges = [vpc["CidrBlock"], *(each["CidrBlock"] for each in vpc.get("CidrBlockAssociationSet", ()))]
    if not any(ip_address(own) in ip_network(each) for each in ranges):
        raise SettingsError(
            f"public: false, but this machine ({own}) is outside of the VPC {subnets.vpc} ({ranges[0]}), so it would "
            "not reach the scheduler. Set public: true in the entry of the cluster, or run the command on an instance "
            "in the VPC. If a VPN or a peering connects this machine, set `client` to its address."
        )
    return f"{own}/32"
