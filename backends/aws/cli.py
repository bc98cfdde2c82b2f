"""The commands of ``fruits cluster``. This module is imported only when one of them runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.aws import cli_options as cloud
from backends.aws import costs
from backends.aws.account import stack
from backends.aws.account.clients import Account, bucket_name, bucket_of
from backends.aws.account.prerequisites import check_user, prerequisites
from backends.aws.account.resources import end_resource, find_resources
from backends.aws.account.subnets import find_subnets
from backends.aws.cli_output import confirm, show, table, text
from backends.aws.emr.releases import release_of
from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.clusters.clouds import DaskEc2Cluster, NodesCluster
from fruits.errors import FruitsError, SettingsError
from fruits.progress.select import to_stderr
from fruits.storage.s3.settings import S3Settings

if TYPE_CHECKING:
    from rich.console import Console

JUPYTERHUB_PORT = 9443

app = typer.Typer(
    name="fruits cluster",
    help="Set up an AWS account for Fruits; list, start and stop clusters.",
    epilog="Begin with: [bold]fruits cluster init s3://my-fruits --region eu-west-3 --dry-run[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def call(argv: Sequence[str]) -> Any:
    """Run one of the commands."""
    return app(list(argv) or ["--help"], prog_name="fruits cluster", standalone_mode=False)


def command(function: Callable[..., CommandResult]) -> Callable[..., CommandResult]:
    """Add a command, whose parameters can be groups of options."""
    return app.command()(options.option_groups(function))


@command
def init(
    *,
    bucket: Annotated[
        str, typer.Argument(metavar="BUCKET", help="s3://name, a new or existing bucket.", show_default=False)
    ],
    entry: cloud.Entry = "emr",
    read: Annotated[
        list[str] | None, typer.Option("--read", metavar="ADDRESS", help="Another bucket that the nodes may read.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The IAM user who will run jobs.", show_default=False)
    ] = None,
    dry_run: cloud.DryRun = False,
    yes: cloud.Yes = False,
    cluster_file: options.ClusterFile = None,
    common: cloud.AccountOptions,
) -> CommandResult:
    """Set up the account once, as a CloudFormation stack; shows the changes, and asks before it makes them."""
    settings = cloud.cloud_settings(entry, cluster_file)
    account = Account(common.region or settings.region)
    account.identity()
    if user is not None:
        check_user(account, user)
    subnets = find_subnets(account, settings if isinstance(settings, NodesCluster) else None)
    needed = list(prerequisites(account, subnets))
    readable = [bucket_name(address) for address in read or ()]
    s3 = S3Settings.from_environment()
    proposed = stack.propose(account, bucket_name(bucket), subnets.vpc, also_read=readable, user=user, s3=s3)
    rows = [*proposed.changes, *(("Create", "", each.description) for each in needed)]
    grid = table(("change", "type", "resource"), rows) if rows else text("Everything exists; nothing changes.")
    agreed = False
    try:
        if rows and not dry_run:
            if not yes:
                show(grid)
            agreed = yes or confirm(f"Make these {len(rows)} changes in {account.region_name}?")
    finally:  # also after Ctrl-C
        if not agreed:
            stack.discard(account, proposed)
    if agreed:
        show(text("Making the changes; this takes a few minutes."))
        for each in needed:
            each.create()
        if proposed.changes:
            try:
                stack.apply(account, proposed)
            except KeyboardInterrupt:
                show(text(proposed.continues(account.region_name)))
                raise
    values = {"changes": [list(row) for row in rows], "made": agreed}
    done = f"Done. Next: fruits cluster doctor --bucket s3://{bucket_name(bucket)}" if agreed else "nothing changed"
    return CommandResult(values, grid if dry_run or yes or not rows else text(done))


@command
def remove(*, yes: cloud.Yes = False, common: cloud.AccountOptions) -> CommandResult:
    """Delete the stack of init, and report what remains: the bucket with its data."""
    account = Account(common.region)
    where = account.region_name
    if found := find_resources(account):
        names = ", ".join(sorted({each.name for each in found}))
        raise SettingsError(f"Still running: {names}. End them first with: fruits cluster down --all --region {where}.")
    if not (yes or confirm(f"Delete the stack {stack.STACK} in {where}: roles, policies, groups, keys and logs?")):
        return CommandResult({"removed": False}, text("nothing changed"))
    bucket = stack.remove(account)
    if bucket is None:
        return CommandResult({"removed": False}, text(f"There is no stack {stack.STACK} in {where}."))
    remains = [
        f"s3://{bucket}, with its objects. To delete it: aws s3 rb --force s3://{bucket}",
        "the key of the volumes, for 7 days, without a charge",
        "the applications of EMR Serverless, which cost nothing",
        "the tag of the subnets and the service-linked roles of AWS, which cost nothing",
    ]
    lines = "\n".join(f"  {each}" for each in remains)
    return CommandResult({"removed": True, "remains": remains}, text(f"The stack is deleted. There remain:\n{lines}"))


@command
def doctor(*, entry: cloud.Entry = "emr", common: cloud.ClusterOptions) -> CommandResult:
    """Check the account, the bucket and the quotas for a cluster; starts nothing. Paste its output into an issue."""
    from backends.aws.doctor import examine

    settings = cloud.cloud_settings(entry, common.cluster_file)
    account, bucket = common.place(settings)
    checks = list(examine(account, settings, bucket))
    failed = sum(check.state == "failed" for check in checks)
    rows = [(check.state, check.name, check.detail) for check in checks]
    values = {"checks": [check._asdict() for check in checks], "failed": failed}
    return CommandResult(values, table(("", "check", "found"), rows), 1 if failed else 0)


@command
def stage(
    *,
    entry: cloud.Entry = "emr",
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", metavar="NAME", help="Also upload the weights of a network other than MobileNetV2."),
    ] = None,
    python_archive: Annotated[
        str | None,
        typer.Option("--python-archive", metavar="FILE", help="A standalone build of Python 3.11, a .tar.gz."),
    ] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", metavar="DIGEST", help="The digest of that file.")] = None,
    quiet: options.Quiet = False,
    common: cloud.ClusterOptions,
) -> CommandResult:
    """Upload the files of a node: the wheel of Fruits, hash-pinned wheels for its Python, scripts, weights."""
    from backends.aws.staging.stage import PythonArchive
    from backends.aws.staging.stage import stage as stage_files

    settings = cloud.cloud_settings(entry, common.cluster_file)
    if isinstance(settings, DaskEc2Cluster):
        raise SettingsError(f"{entry}: its files are staged by each job. Give a cluster of EMR or EMR Serverless.")
    if (python_archive is None) != (sha256 is None):
        raise SettingsError("--python-archive and --sha256: give both, the digest from the publisher of the file.")
    python = PythonArchive(Path(python_archive), sha256) if python_archive and sha256 else None
    account, bucket = common.place(settings)
    notify, contents = to_stderr(quiet=quiet).note, release_of(settings)
    staged = stage_files(account, bucket, contents, backbones=backbone or (), python=python, notify=notify)
    return CommandResult({"staged": staged.root}, text(f"staged: {staged.root}"))


@command
def render(
    entry: cloud.EntryName,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A local folder for the files.")],
    bucket: cloud.Bucket = None,
    account_number: Annotated[
        str, typer.Option("--account", metavar="NUMBER", help="The account number in the requests.")
    ] = "111122223333",
    cluster_file: options.ClusterFile = None,
) -> CommandResult:
    """Write the requests, the bootstrap script and the template of the account to files, to read or to use by hand."""
    from backends.aws.render import rendered

    settings = cloud.emr_settings(entry, cluster_file)
    files = rendered(settings, entry, bucket=bucket_of(settings, bucket), account=account_number)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return CommandResult(
        {"folder": str(folder.resolve()), "files": list(files)}, text(f"written to {folder}: {', '.join(files)}")
    )


@command
def cost(
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="The number of images.")],
    entry: cloud.Entry = "emr",
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="Default: the region of the cluster, AWS_REGION, or us-east-1."),
    ] = None,
    speed: Annotated[
        float, typer.Option("--images-per-second", metavar="NUMBER", help="The speed of one core.")
    ] = costs.IMAGES_PER_SECOND,
    worker_price: Annotated[
        float | None,
        typer.Option("--worker-price", metavar="DOLLARS", help="The price of a worker node for an hour."),
    ] = None,
    cluster_file: options.ClusterFile = None,
) -> CommandResult:
    """Estimate minutes, vCPU-hours and dollars, without a request to AWS."""
    settings = cloud.cloud_settings(entry, cluster_file)
    where = region or settings.region or os.environ.get("AWS_REGION") or "us-east-1"
    estimated = partial(costs.cost, settings, images, region=where, images_per_second=speed, worker_price=worker_price)
    estimate, on_demand = estimated(), estimated(spot=False)
    content = (
        f"{images:,} images on {estimate.vcpus} vCPUs ({estimate.workers}), {speed:g} images/s per core\n"
        f"about {estimate.minutes:,.0f} minutes, {estimate.vcpu_hours:,.0f} vCPU-hours, ${estimate.dollars:,.2f}"
        f"{f' (${on_demand.dollars:,.2f} without Spot)' if on_demand != estimate else ''}\n"
        f"prices of {estimate.prices_of}, {where}; without S3 requests, storage and traffic"
    )
    return CommandResult(asdict(estimate) | {"dollars_without_spot": on_demand.dollars}, text(content))


@command
def up(
    *, entry: cloud.EntryName, dry_run: cloud.DryRun = False, quiet: options.Quiet = False, common: cloud.ClusterOptions
) -> CommandResult:
    """Start a long-lived cluster. It shuts down after `idle_minutes` without work, and after `max_hours`."""
    from backends.aws.emr.clusters import find_cluster, start_cluster
    from backends.aws.emr.request import job_flow
    from backends.aws.staging.stage import ensure_staged, offer_notebook
    from backends.aws.staging.staged_files import StagedFiles

    settings = cloud.emr_settings(entry, common.cluster_file)
    account, bucket = common.place(settings)
    notify, place = to_stderr(quiet=quiet).note, f"--region {account.region_name}"
    if dry_run:
        staged = StagedFiles.for_release(bucket, release_of(settings))
        installed, subnets = stack.find_installed(account), find_subnets(account, settings)
        request = job_flow(settings, name=entry, staged=staged, installed=installed, subnets=subnets)
        return CommandResult(request, text(json.dumps(request, indent=2)))
    if (running := find_cluster(account, entry)) is not None:
        raise SettingsError(
            f"{entry} exists already: {running['Id']}, {running['Status']['State']}. "
            f"Use it, or end it with: fruits cluster down {entry} {place}."
        )
    staged = ensure_staged(account, settings, bucket, notify=notify)
    notebook = offer_notebook(account, bucket) if settings.notebook else None
    identifier = start_cluster(account, settings, name=entry, staged=staged, notify=notify)
    lines = [
        f"{entry}: {identifier} is starting. Its state: fruits cluster status {entry} {place}",
        f"It shuts down after {settings.idle_minutes} idle minutes, after {settings.max_hours} hours, or with: "
        f"fruits cluster down {entry} {place}",
    ]
    if notebook is not None:
        lines += [
            f"JupyterHub, once the cluster is running: fruits cluster ssh {entry} --tunnel {JUPYTERHUB_PORT} {place}, "
            f"then open https://localhost:{JUPYTERHUB_PORT}. The notebook: {notebook}"
        ]
    return CommandResult({"name": entry, "cluster": identifier}, text("\n".join(lines)))


@command
def status(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A cluster or a job; default: all.")] = None,
    common: cloud.AccountOptions,
) -> CommandResult:
    """List the running Fruits resources in the account, which are found by their tags."""
    account = Account(common.region)
    found = find_resources(account, name)
    rows = [(each.name, each.kind, each.identifier, each.state) for each in found]
    return CommandResult(
        {"found": [asdict(each) for each in found]},
        table(("name", "kind", "identifier", "state"), rows) if rows else _nothing(account, name),
    )


@command
def logs(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A job, by the name that it printed at its start.")],
    entry: cloud.Entry = "emr",
    common: cloud.ClusterOptions,
) -> CommandResult:
    """Show the log of a job, running or ended."""
    from backends.aws.emr.submitted import read_log

    account, bucket = common.place(cloud.cloud_settings(entry, common.cluster_file))
    log = read_log(account, bucket, name)
    return CommandResult({"name": name, "log": log}, text(log.rstrip()))


@command
def ssh(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A cluster of cluster.yaml, or a job.")],
    tunnel: Annotated[
        int | None,
        typer.Option("--tunnel", metavar="PORT", help="Forward this port of the master node to this machine instead."),
    ] = None,
    dry_run: cloud.DryRun = False,
    common: cloud.AccountOptions,
) -> CommandResult:
    """Open a session on the master node, or a tunnel to it, through the AWS Session Manager; needs no open port."""
    from backends.aws.emr.session import session_command

    words = session_command(Account(common.region), name, tunnel)
    if dry_run or shutil.which(words[0]) is None:
        return CommandResult({"command": words}, text(" ".join(words)))
    ended = subprocess.run(words, check=False)
    return CommandResult({"command": words, "exit_code": ended.returncode}, lambda console: None, ended.returncode)


@command
def down(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A cluster or a job.")] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="End all Fruits resources.")] = False,
    dry_run: cloud.DryRun = False,
    yes: cloud.Yes = False,
    common: cloud.AccountOptions,
) -> CommandResult:
    """End the running resources of a cluster or a job, or with --all those of every cluster and job."""
    if (name is None) == (not everything):
        raise SettingsError("fruits cluster down: give NAME or --all. List the names with: fruits cluster status.")
    account = Account(common.region)
    rows: list[tuple[str, str, str]] = []
    failed: dict[str, str] = {}
    for each in find_resources(account, name):
        state = "running"
        description = f"{each.kind} {each.identifier} of {each.name} ({each.state.lower()})"
        if not dry_run and (yes or confirm(f"End {description}?")):
            try:
                end_resource(account, each)
                state = "ended"
            except FruitsError as error:  # reported at the end, after the other resources
                state, failed[each.identifier] = "failed", str(error)
        rows.append((state, each.name, each.identifier))

    def report(console: Console) -> None:
        (table(("", "name", "identifier"), rows) if rows else _nothing(account, name))(console)
        for message in failed.values():
            text(message)(console)

    ended = [identifier for state, _, identifier in rows if state == "ended"]
    left = [identifier for state, _, identifier in rows if state != "ended"]
    return CommandResult({"ended": ended, "left": left, "failed": failed}, report, 1 if failed else 0)


def _nothing(account: Account, name: str | None) -> Callable[[Console], None]:
    return text(f"No Fruits resources{f' of {name}' if name else ''} are running in {account.region_name}.")
