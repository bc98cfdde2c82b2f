"""The subnets of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.tags import MANAGED, parse_tags
from fruits.clusters.clouds import NodesCluster
from fruits.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Subnets:
    """Subnets of one VPC.

    Attributes
    ----------
    vpc : str
    identifiers : tuple of str
    private : bool
        True without a route to an internet gateway.
    cidr : str
        The addresses of the first one.
    untagged : tuple of str
        Those without the tag that EMR requires.
    """

    vpc: str
    identifiers: tuple[str, ...]
    private: bool
    cidr: str
    untagged: tuple[str, ...] = ()


def find_subnets(account: Account, settings: NodesCluster | None) -> Subnets:
    """Return the subnet of the settings, or the subnets of the default VPC.

    Raises
    ------
    SettingsError
        No subnet is set, and the account has no default VPC.
    """
    ec2 = account.client("ec2")
    named = settings.subnet if settings is not None else None
    query = {"SubnetIds": [named]} if named else {"Filters": _filter("default-for-az", "true")}
    with translated_errors("look up the subnets"):
        subnets = sorted(ec2.describe_subnets(**query)["Subnets"], key=lambda subnet: str(subnet["SubnetId"]))
    if not subnets:
        raise SettingsError(
            "The account has no default VPC in this region. Create one with `aws ec2 create-default-vpc`, or set "
            "`subnet` of the cluster in cluster.yaml."
        )
    identifiers = tuple(str(subnet["SubnetId"]) for subnet in subnets)
    vpc = str(subnets[0]["VpcId"])
    untagged = tuple(
        str(each["SubnetId"]) for each in subnets if MANAGED not in parse_tags(each.get("Tags", ())).items()
    )
    return Subnets(vpc, identifiers, _is_private(ec2, vpc, identifiers[0]), str(subnets[0]["CidrBlock"]), untagged)


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
