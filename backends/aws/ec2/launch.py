"""Settings of a cluster's instances: image, subnet, security group, and the script that each instance runs."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_network
from typing import Any

from backends.aws.account.clients import Account, split_address, translated_errors
from backends.aws.account.tags import BUCKET_TAG, aws_tags, tags_of
from backends.aws.account.vpc import Subnets, find_subnets
from backends.aws.ec2.dask_node import PORT
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import DaskEc2Cluster
from fruits.errors import SettingsError

__all__ = ["LaunchSettings", "create_security_group", "prepare_launch"]

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
    tags : mapping of str to str
    region : str
    image, root_device : str
        The identifier of the image, and the name of its root device.
    subnets : Subnets
    group : str
        The identifier of the security group.
    workers_per_node : int
    staged : StagedFiles
    secrets : str
        The S3 address of the :class:`~backends.aws.ec2.dask_node.Secrets`.
    """

    settings: DaskEc2Cluster
    name: str
    tags: Mapping[str, str]
    region: str
    image: str
    root_device: str
    subnets: Subnets
    group: str
    workers_per_node: int
    staged: StagedFiles
    secrets: str

    def script(self, *arguments: object) -> str:
        """Return the start script of an instance, with the `arguments` of ``dask_node``. It contains no secret."""
        values = {
            "REGION": self.region,
            "PYTHON": self.staged.root.rpartition("-python")[2],
            "BOOTSTRAP": self.staged.bootstrap,
            "WHEELHOUSE": self.staged.wheelhouse,
            "SECRETS": self.secrets,
            "ARGUMENTS": " ".join(map(str, arguments)),
        }
        script = (files("backends.aws.ec2") / SCRIPT).read_text(encoding="utf-8")
        return re.sub("@([A-Z]+)@", lambda name: values[name[1]], script)


def prepare_launch(
    account: Account, settings: DaskEc2Cluster, name: str, staged: StagedFiles, secrets: str
) -> LaunchSettings:
    """Look up image, instance type and subnet, create the security group, and return the launch settings.

    Raises
    ------
    SettingsError
        The image or the subnet does not exist, or the client's address is not known.
    """
    ec2 = account.client("ec2")
    with translated_errors("look up the instance type and the image"):
        types = ec2.describe_instance_types(InstanceTypes=[settings.worker_type])["InstanceTypes"]
        newest: dict[str, Any] = {"Owners": [IMAGE_OWNER], "Filters": [{"Name": "name", "Values": [IMAGE_NAME]}]}
        images = ec2.describe_images(**{"ImageIds": [settings.image]} if settings.image else newest)["Images"]
    if not images:
        raise SettingsError(f"Image {settings.image or IMAGE_NAME} not found. Set `image` in cluster.yaml.")
    image = max(images, key=lambda image: str(image["CreationDate"]))
    subnets = find_subnets(account, settings)
    tags = tags_of(name, {**settings.tags, BUCKET_TAG: split_address(secrets)[0]})
    client = settings.client or f"{_own_address(account, settings, subnets.identifiers[0])}/32"
    return LaunchSettings(
        settings=settings,
        name=name,
        tags=tags,
        region=str(ec2.meta.region_name),
        image=str(image["ImageId"]),
        root_device=str(image["RootDeviceName"]),
        subnets=subnets,
        group=create_security_group(account, subnets.vpc, name, client, tags),
        workers_per_node=int(types[0]["VCpuInfo"]["DefaultVCpus"]),
        staged=staged,
        secrets=secrets,
    )


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


def _own_address(account: Account, settings: DaskEc2Cluster, subnet: str) -> str:
    """Return the address of this machine that the scheduler sees: its public one, or the one towards the subnet."""
    if settings.public:
        try:
            with urllib.request.urlopen(PUBLIC_ADDRESS_URL, timeout=10) as answer:  # nosec B310  # a constant, https
                return str(answer.read().decode().strip())
        except OSError as error:
            raise SettingsError(
                f"Could not look up the public address of this machine at {PUBLIC_ADDRESS_URL} ({error}). "
                "Set `client` in cluster.yaml, such as 203.0.113.7/32."
            ) from error
    with translated_errors("look up the subnet"):
        described = account.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"][0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(ip_network(described["CidrBlock"])[1]), PORT))  # UDP: selects the route, sends nothing
        return str(probe.getsockname()[0])
