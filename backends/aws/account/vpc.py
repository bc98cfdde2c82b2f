"""Subnets and security groups of EMR clusters. The groups admit nothing from outside of the cluster.

EMR adds the rules that its nodes need: https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-man-sec-groups.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.aws.account.clients import Account, translated_errors
from fruits.clusters.clouds import AwsCluster
from fruits.errors import SettingsError

__all__ = ["GROUPS", "Subnets", "Vpc", "find_groups", "find_subnets", "find_vpc", "groups_needed"]

# The security groups and their descriptions. EMR's service has a separate group in private subnets only.
GROUPS = {
    "fruits-master": "Fruits on EMR: the node that leads",
    "fruits-worker": "Fruits on EMR: the nodes that work",
    "fruits-service": "Fruits on EMR: the service, in private subnets",
}


@dataclass(frozen=True, slots=True)
class Vpc:
    """Subnets and security groups of an EMR cluster.

    Attributes
    ----------
    subnets : tuple of str
        EMR chooses the one with enough capacity.
    master_group, worker_group : str
        Security groups.
    service_group : str, optional
        The security group of EMR's service; in private subnets only.
    """

    subnets: tuple[str, ...]
    master_group: str
    worker_group: str
    service_group: str | None = None


@dataclass(frozen=True, slots=True)
class Subnets:
    """Subnets of one VPC.

    Attributes
    ----------
    vpc : str
    identifiers : tuple of str
    private : bool
        True without a route to an internet gateway.
    """

    vpc: str
    identifiers: tuple[str, ...]
    private: bool


def find_subnets(account: Account, settings: AwsCluster) -> Subnets:
    """Return the subnet of the settings, or the subnets of the default VPC.

    Raises
    ------
    SettingsError
        No subnet is set, and the account has no default VPC.
    """
    ec2 = account.client("ec2")
    query = {"SubnetIds": [settings.subnet]} if settings.subnet else {"Filters": _filter("default-for-az", "true")}
    with translated_errors("look up the subnets"):
        subnets = sorted(ec2.describe_subnets(**query)["Subnets"], key=lambda subnet: str(subnet["SubnetId"]))
    if not subnets:
        raise SettingsError(
            "The account has no default VPC in this region. Set `subnet` of the cluster in cluster.yaml."
        )
    identifiers = tuple(str(subnet["SubnetId"]) for subnet in subnets)
    vpc = str(subnets[0]["VpcId"])
    return Subnets(vpc, identifiers, _is_private(ec2, vpc, identifiers[0]))


def groups_needed(subnets: Subnets) -> list[str]:
    """Return the names of the security groups that a cluster in these subnets needs."""
    return [name for name in GROUPS if subnets.private or name != "fruits-service"]


def find_groups(account: Account, vpc: str) -> Mapping[str, str]:
    """Return the identifiers of the existing security groups in a VPC, by name."""
    with translated_errors("look up the security groups"):
        response = account.client("ec2").describe_security_groups(
            Filters=[*_filter("vpc-id", vpc), {"Name": "group-name", "Values": list(GROUPS)}]
        )
    return {str(group["GroupName"]): str(group["GroupId"]) for group in response["SecurityGroups"]}


def find_vpc(account: Account, settings: AwsCluster) -> Vpc:
    """Return the subnets and security groups for a cluster.

    Raises
    ------
    SettingsError
        A security group is missing in this region.
    """
    subnets = find_subnets(account, settings)
    groups = find_groups(account, subnets.vpc)
    needed = groups_needed(subnets)
    missing = [name for name in needed if name not in groups]
    if missing:
        raise SettingsError(
            f"The security groups {', '.join(missing)} do not exist in {subnets.vpc}. "
            "Create them with: fruits cluster init."
        )
    master, worker, *service = (groups[name] for name in needed)
    return Vpc(subnets.identifiers, master, worker, *service)


def _is_private(ec2: Any, vpc: str, subnet: str) -> bool:
    """Return whether the route table of a subnet, or else the main one of its VPC, has no internet gateway."""
    with translated_errors("look up the routes"):
        tables = ec2.describe_route_tables(Filters=_filter("association.subnet-id", subnet))["RouteTables"]
        if not tables:
            filters = [*_filter("vpc-id", vpc), *_filter("association.main", "true")]
            tables = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    routes = [route for table in tables for route in table["Routes"]]
    return not any(str(route.get("GatewayId", "")).startswith("igw-") for route in routes)


def _filter(name: str, value: str) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]}]
