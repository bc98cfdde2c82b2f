"""A checklist of an account, to run in five minutes and to paste into an issue: ``fruits cluster doctor``."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import NamedTuple

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.preflight import check_quotas
from backends.aws.account.resources import find_resources
from backends.aws.account.stack import find_installed
from backends.aws.account.subnets import find_subnets
from backends.aws.account.tags import MANAGED
from backends.aws.costs import cost
from backends.aws.emr.releases import release_of
from backends.aws.staging.stage import is_staged
from fruits.clusters.clouds import CloudCluster, EmrServerlessCluster, NodesCluster
from fruits.errors import FruitsError, SettingsError


class Check(NamedTuple):
    """The result of one check.

    Attributes
    ----------
    name : str
    state : {"ok", "failed", "unknown"}
    detail : str
        What was found, or the error with its remedy. It has no secret, and no account number.
    """

    name: str
    state: str
    detail: str


def examine(account: Account, settings: CloudCluster, bucket: str) -> Iterator[Check]:
    """Yield the checks in the order in which their failures should be corrected. Nothing is started.

    Parameters
    ----------
    account : Account
    settings : CloudCluster
    bucket : str
        Without ``s3://``.
    """
    notes: list[str] = []

    def check(name: str, look: Callable[[], str], otherwise: str = "failed") -> Check:
        try:
            return Check(name, "ok", look())
        except FruitsError as error:  # AWS names the user, with the account number, in refusals
            return Check(name, otherwise, re.sub(r"\b\d{8}(?=\d{4}\b)", "…", str(error)))

    def quotas() -> str:
        if isinstance(settings, EmrServerlessCluster):
            return "not of EC2"
        check_quotas(account, settings, notes.append)
        return "; ".join(notes) or "enough"

    def subnets() -> str:
        found = find_subnets(account, settings if isinstance(settings, NodesCluster) else None)
        if found.untagged:
            raise SettingsError(f"{', '.join(found.untagged)}: without the tag {MANAGED[0]}. Run: fruits cluster init.")
        return f"{len(found.identifiers)}, {'private' if found.private else 'public'}"

    def objects() -> str:
        s3, key = account.client("s3"), "fruits/doctor"
        with translated_errors(f"write, read and delete s3://{bucket}/{key}"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"fruits")
            s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            s3.delete_object(Bucket=bucket, Key=key)
        return f"s3://{bucket}: write, read, delete"

    def staged() -> str:
        contents = release_of(settings)
        if is_staged(account, bucket, contents):
            return "current"
        archive = " (the first time: fruits cluster stage with --python-archive, see docs/aws.md)"
        return f"missing or outdated; the next job stages them{archive * contents.needs_python}"

    def price() -> str:
        return f"${cost(settings, 10_000, region=account.region_name).dollars:.2f} for 10,000 images"

    here = f"fruits {version('fruits')}, boto3 {version('boto3')}, Python {platform.python_version()}"
    yield Check("versions", "ok", here)
    tools = (f"{name}: {'' if shutil.which(name) else 'not '}found" for name in ("aws", "session-manager-plugin"))
    yield Check("tools", "ok", f"{', '.join(tools)} (for `ssh` alone)")
    credentials = check("credentials", lambda: f"valid, of the account …{account.identity()[-4:]}")
    yield credentials
    if credentials.state == "failed":
        return
    yield check("stack", lambda: f"complete, in {find_installed(account).region}")
    yield check("bucket", objects)
    yield check("subnets", subnets)
    yield check("quotas", quotas)
    yield check("staged files", staged)
    yield check("price", price, otherwise="unknown")
    yield check("running", lambda: ", ".join(sorted({each.name for each in find_resources(account)})) or "nothing")
