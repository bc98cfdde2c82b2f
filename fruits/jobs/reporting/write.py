"""Write the page of a run report into the output of its job."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from fruits.errors import OutputError
from fruits.jobs.job import FITTING
from fruits.jobs.report import REPORT, Report, finished
from fruits.jobs.reporting.findings import examine
from fruits.jobs.reporting.page import render
from fruits.jobs.stages import StageRunner
from fruits.jobs.stored import StoredJob
from fruits.storage.checksums import read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder

COMMANDS = (*FITTING, "transform")
MOST_BYTES = 2_000_000  # of a page; without pictures, names and numbers stay far below it


def write_page(out: Folder, *, tsne: bool = False) -> str:
    """Write the page of the finished job in an output, and return its name below the folder.

    The page is no part of the result: the commit does not list it, because it is written when the job is complete. Its
    name contains the owner, and it is published only while the job is that of the last commit.

    Raises
    ------
    OutputError
        The folder contains no finished job that has one, or another job has claimed it.
    DamageError
        A file that the page is made from is corrupt.
    SettingsError
        `tsne` without scikit-learn.
    """
    commit = finished(out)
    if commit.job["command"] not in COMMANDS:
        raise OutputError(
            f"{out.address} is the output of `{commit.job['command']}`, which has no run report. "
            f"Give the output of {', '.join(COMMANDS)} or train."
        )
    job = StoredJob.load(out, commit)
    name = job.owned.name(REPORT, "json")
    data = read_part(out, name, bytes.fromhex(commit.files[name]))
    findings = examine(job, Report.of(orjson.loads(data), f"{out.address}/{name}"), tsne=tsne)
    page = render(findings).encode()
    if len(page) > MOST_BYTES:
        page = render(findings, pictures=False).encode()
    name = job.owned.name(REPORT, "html")
    job.owned.write(name, page)
    return name


def add_page(out: OwnedFolder, runner: StageRunner, write: Callable[[Folder], object]) -> None:
    """Write the page of a job or a training that is complete, unless an earlier command has.

    A page that cannot be written is reported: the output is complete without it.
    """
    try:
        if not out.folder.exists(out.name(REPORT, "html")):
            with runner.timed("report"):
                write(out.folder)
    except Exception as error:
        runner.progress.note(
            f"the output is complete, but its report could not be written: {type(error).__name__}: {error} Write it "
            f"with: fruits report {out.folder.address}"
        )
