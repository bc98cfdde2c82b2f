"""The commands below ``fruits cluster``; imported when one of them is used."""

from __future__ import annotations

import json as json_
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.aws.account.clients import Account, bucket_name, bucket_of
from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.clusters.resolve import resolve
from fruits.errors import FruitsError, SettingsError
from fruits.progress.select import to_stderr
from fruits.storage.s3.settings import S3Settings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app", "call"]

JUPYTERHUB_PORT = 9443

app = typer.Typer(
    name="fruits cluster",
    help="Clusters on AWS: what an account needs, what they cost, and those that are up.",
    epilog="Begin with: [bold]fruits cluster init s3://my-fruits --region eu-west-3 --dry-run[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name in cluster.yaml, or that of a job.")]
Region = Annotated[str | None, typer.Option("--region", metavar="NAME", help="Default: that of the bucket.")]
Bucket = Annotated[
    str | None,
    typer.Option(
        "--bucket", metavar="ADDRESS", envvar="FRUITS_BUCKET", help="s3://name; default: `bucket` in cluster.yaml."
    ),
]
Entry = Annotated[str, typer.Option("--cluster", metavar="NAME", help="A cluster of cluster.yaml.")]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")]


def call(words: Sequence[str]) -> Any:
    """Run one of the commands."""
    return app(list(words) or ["--help"], prog_name="fruits cluster", standalone_mode=False)


@app.command()
def init(
    bucket: Annotated[str, typer.Argument(metavar="BUCKET", help="s3://name, new or yours.", show_default=False)],
    region: Region = None,
    entry: Entry = "emr",
    read: Annotated[
        list[str] | None, typer.Option("--read", metavar="ADDRESS", help="Another bucket that nodes may read.")
    ] = None,
    key_pair: Annotated[
        str | None, typer.Option("--key-pair", metavar="NAME", help="Make a key pair too, and write NAME.pem.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Make what the account needs once: a bucket, roles, security groups. Each is shown before it is made."""
    from backends.aws.account.setup import needed

    settings = _settings(entry, cluster_file)
    account = Account(region or settings.region)
    name = bucket_name(bucket)
    readable = [bucket_name(address) for address in read or ()]
    things = []
    s3 = S3Settings.from_environment()
    for thing in needed(account, settings, name, also_read=readable, key_pair=key_pair, s3=s3):
        made = not dry_run and (thing.there or yes or _confirmed(f"Make {thing.words}?"))
        if made:
            thing.make()
        state = "there" if thing.there else "made" if made else "missing"
        things.append({"what": thing.words, "state": state})
    return CommandResult({"things": things}, _table(("", "what"), [(str(t["state"]), str(t["what"])) for t in things]))


@app.command()
def stage(
    bucket: Bucket = None,
    entry: Entry = "emr",
    region: Region = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", metavar="NAME", help="Also upload the weights of a network other than MobileNetV2."),
    ] = None,
    quiet: options.Quiet = False,
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Upload the files of a node: the wheel of Fruits, hash-pinned wheels for its Python, scripts, weights."""
    from backends.aws.emr.releases import release
    from backends.aws.staging.wheelhouse import stage as staged_to

    settings = _emr(entry, cluster_file)
    where = bucket_of(settings, bucket)
    carried = release(settings.release, for_job=True)
    account = Account.of(settings, where, region)
    staged = staged_to(account, where, carried, backbones=backbone or (), tell=to_stderr(quiet=quiet).note)
    return CommandResult({"staged": staged.root}, _line(f"staged: {staged.root}"))


@app.command()
def render(
    entry: Annotated[str, typer.Argument(metavar="NAME", help="A cluster of EMR in cluster.yaml.")],
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="A folder of this machine.")],
    bucket: Bucket = None,
    account_number: Annotated[
        str, typer.Option("--account", metavar="NUMBER", help="The number of your account, in the policies.")
    ] = "111122223333",
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Write the request, the configuration, the bootstrap script and the policies: to read, or to use by hand."""
    from backends.aws.render import rendered

    settings = _emr(entry, cluster_file)
    files = rendered(settings, entry, bucket=bucket_of(settings, bucket), account=account_number)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return CommandResult(
        {"folder": str(folder.resolve()), "files": list(files)}, _line(f"{', '.join(files)} are in {folder}")
    )


@app.command()
def cost(
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="How many images.")],
    entry: Entry = "emr",
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="Default: that of the cluster, AWS_REGION, or us-east-1."),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--images-per-second", metavar="NUMBER", help="Of one core; default: see docs/performance.md."),
    ] = None,
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Estimate minutes, vCPU-hours and dollars; asks nobody."""
    from backends.aws import costs

    settings = _settings(entry, cluster_file)
    where = region or settings.region or os.environ.get("AWS_REGION") or "us-east-1"
    speed = costs.IMAGES_PER_SECOND if speed is None else speed
    usual = costs.cost(settings, images, region=where, images_per_second=speed)
    dear = costs.cost(settings, images, region=where, images_per_second=speed, spot=False)
    words = (
        f"{images:,} images on {usual.vcpus} vCPUs ({usual.workers}), {speed:g} images/s a core\n"
        f"about {usual.minutes:,.0f} minutes, {usual.vcpu_hours:,.0f} vCPU-hours, ${usual.dollars:,.2f}"
        f"{f' (${dear.dollars:,.2f} without Spot)' if dear != usual else ''}\n"
        f"prices of {usual.prices_of}, {where}; without S3's requests, storage and traffic"
    )
    return CommandResult(asdict(usual) | {"dollars_without_spot": dear.dollars}, _line(words))


@app.command()
def up(
    entry: Annotated[str, typer.Argument(metavar="NAME", help="A cluster of cluster.yaml.")],
    bucket: Bucket = None,
    region: Region = None,
    dry_run: DryRun = False,
    quiet: options.Quiet = False,
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Start a long-lived cluster; it ends itself when it was idle for `idle_minutes`."""
    from backends.aws.account.vpc import find_network
    from backends.aws.emr.job import staged_for
    from backends.aws.emr.releases import release
    from backends.aws.emr.request import job_flow
    from backends.aws.emr.steps import clusters, start
    from backends.aws.staging.staged import StagedFiles
    from backends.aws.staging.wheelhouse import offer_notebook

    settings = _emr(entry, cluster_file)
    where = bucket_of(settings, bucket)
    python = str(release(settings.release, for_job=True).python)
    account = Account.of(settings, where, region)
    if dry_run:
        request = job_flow(
            settings,
            name=entry,
            bucket=where,
            staged=StagedFiles.of(where, python),
            network=find_network(account, settings),
        )
        return CommandResult(request, _line(json_.dumps(request, indent=2)))
    for found in clusters(account, entry):
        raise SettingsError(
            f"{entry} is up already: {found['Id']}, {found['Status']['State']}. Use it, or: down {entry}."
        )
    staged = staged_for(account, settings, where, tell=to_stderr(quiet=quiet).note)
    notebook = offer_notebook(account, where) if settings.notebook else None
    identifier = start(account, settings, name=entry, bucket=where, staged=staged)
    words = (
        f"{entry}: {identifier} is starting; look with: fruits cluster status {entry}\n"
        f"It ends itself after {settings.idle_minutes} idle minutes, or with: fruits cluster down {entry}"
    )
    if notebook is not None:
        words += (
            f"\nJupyterHub, once it is up: fruits cluster ssh {entry} --tunnel {JUPYTERHUB_PORT}, and then "
            f"https://localhost:{JUPYTERHUB_PORT}, with the notebook {notebook}"
        )
    return CommandResult({"name": entry, "cluster": identifier}, _line(words))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Default: all.")] = None,
    region: Region = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Show what of ours is up in the account, found by its tags."""
    from backends.aws.account.resources import find

    found = find(Account(region), name)
    lines = [(each.name, each.kind, each.identifier, each.state) for each in found]
    return CommandResult(
        {"found": [asdict(each) for each in found]},
        _table(("name", "kind", "identifier", "state"), lines) if lines else _line("Nothing of ours is up."),
    )


@app.command()
def logs(
    name: Name,
    bucket: Bucket = None,
    region: Region = None,
    entry: Entry = "emr",
    cluster_file: options.ClusterFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Show what a job wrote."""
    from backends.aws.emr.steps import job_log

    settings = _settings(entry, cluster_file)
    where = bucket_of(settings, bucket)
    text = job_log(Account.of(settings, where, region), where, name)
    return CommandResult({"name": name, "log": text}, _line(text.rstrip()))


@app.command()
def ssh(
    name: Name,
    tunnel: Annotated[
        int | None, typer.Option("--tunnel", metavar="PORT", help="Forward this port of the leading node instead.")
    ] = None,
    region: Region = None,
    dry_run: DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Open a session on the leading node, or a tunnel to it, through AWS' Session Manager: no port is opened."""
    from backends.aws.emr.session import session_command

    account = Account(region)
    command = session_command(account, name, tunnel)
    if dry_run or shutil.which(command[0]) is None:
        return CommandResult({"command": command}, _line(" ".join(command)))
    done = subprocess.run(command, check=False)
    return CommandResult({"command": command, "exit_code": done.returncode}, lambda console: None, done.returncode)


@app.command()
def down(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A cluster or a job.")] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="All that our tags name.")] = False,
    region: Region = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """End what is up: what carries the tag of NAME, or all of ours with --all."""
    from backends.aws.account.resources import end_found, find

    if (name is None) == (not everything):
        raise SettingsError("fruits cluster down: give NAME or --all. `fruits cluster status` shows what is up.")
    account = Account(region)
    found = find(account, name)
    ended: list[str] = []
    failed: dict[str, str] = {}
    for each in found:
        words = f"{each.kind} {each.identifier} of {each.name} ({each.state.lower()})"
        if not dry_run and (yes or _confirmed(f"End {words}?")):
            try:
                end_found(account, each)
                ended.append(each.identifier)
            except FruitsError as error:  # which does not keep the next from being ended
                failed[each.identifier] = str(error)
    left = [each.identifier for each in found if each.identifier not in ended]
    state = dict.fromkeys(ended, "ended") | dict.fromkeys(left, "up") | dict.fromkeys(failed, "failed")
    lines = [(state[each.identifier], each.name, each.identifier) for each in found]

    def show(console: Console) -> None:
        (_table(("", "name", "identifier"), lines) if lines else _line("Nothing of ours is up."))(console)
        for message in failed.values():
            _line(message)(console)

    return CommandResult({"ended": ended, "left": left, "failed": failed}, show, 1 if failed else 0)


def _settings(entry: str, file: str | None) -> CloudCluster:
    found = resolve(cluster=entry, file=file).cloud
    if found is None:
        raise SettingsError(f"{entry}: not a cluster in the cloud. Give one that has a `cloud` in cluster.yaml.")
    return found


def _emr(entry: str, file: str | None) -> EmrCluster:
    found = _settings(entry, file)
    if not isinstance(found, EmrCluster):
        raise SettingsError(f"{entry}: not a cluster of EMR, whose `cloud` in cluster.yaml is emr.")
    return found


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise SettingsError(
            f"{question} There is nobody to ask, because stdin is no terminal. Give --yes to agree to everything, or "
            "--dry-run to see what it would be."
        )
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # which is what it makes of Ctrl-C
        raise KeyboardInterrupt from None


def _line(text: str) -> Callable[[Console], None]:
    return lambda console: console.print(text, markup=False, soft_wrap=True)


def _table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in names:
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*(Text(cell) for cell in line))
        console.print(table)

    return show
