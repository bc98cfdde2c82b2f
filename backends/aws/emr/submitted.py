"""Jobs that were submitted to EMR or EMR Serverless: follow one to its report, leave or end it, and read its log."""

from __future__ import annotations

import gzip
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backends.aws.account.clients import Account, Notify
from backends.aws.emr.emr_step import LOG, RESULT
from backends.aws.job_arguments import job_folder
from fruits.errors import FruitsError, InputError, JobError, SettingsError
from fruits.jobs.report import Report, SliceReport, report_from_dict
from fruits.progress.reporter import Progress

POLL_SECONDS = 10.0
TAIL_LINES = 30  # of the log, in the message about a failed job


class JobState(NamedTuple):
    """The state of a job in AWS.

    Attributes
    ----------
    text : str
        For the progress listener.
    over, completed : bool
    reasons : sequence of (str or None)
        Those that AWS gives for a failure.
    """

    text: str
    over: bool
    completed: bool
    reasons: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class SubmittedJob(ABC):
    """A job that was submitted.

    Attributes
    ----------
    account : Account
    name, bucket : str
    cluster, identifier : str
        AWS's identifiers of the cluster and the step, or of the application and the job run.
    owner : str
        The name that ends the job: its own, or that of the long-lived cluster.
    """

    account: Account = field(repr=False)
    name: str
    bucket: str
    cluster: str
    identifier: str
    owner: str

    @abstractmethod
    def state(self) -> JobState:
        """Return the state of the job."""

    @abstractmethod
    def end(self) -> None:
        """End the job, and the cluster that was started for it."""

    @property
    def folder(self) -> str:
        """The address of the folder with the log and the result."""
        return job_folder(self.bucket, self.name)

    @property
    def down(self) -> str:
        """The command that ends the job."""
        return f"fruits cluster down {self.owner} --region {self.account.region_name}"

    @property
    def continues(self) -> str:
        """The message of a client that leaves the job running."""
        return f"{self.name} continues on {self.cluster}. The same command follows it again; to end it: {self.down}"

    @property
    def found(self) -> str:
        """The message of a client that finds the job running."""
        return (
            f"{self.name} runs already on {self.cluster}, with the same arguments; following it. "
            f"To start anew, end it first: {self.down}"
        )


def await_report(job: SubmittedJob, *, progress: Progress, log: Notify) -> Report | SliceReport:
    """Return the report of a job; after Ctrl-C, leave the job running if the user confirms it, and else end it.

    Parameters
    ----------
    job : SubmittedJob
    progress : fruits.progress.reporter.Progress
    log : callable
        Receives each line of the job's log.
    """
    place = f"--bucket s3://{job.bucket} --region {job.account.region_name}"
    progress.note(f"{job.name} is submitted to {job.cluster}; its log: fruits cluster logs {job.name} {place}")
    try:
        return report_from_dict(follow(job, notify=progress.note, log=log))
    except KeyboardInterrupt:
        if confirm_leaving(job):
            progress.note(job.continues)
        else:
            job.end()
            progress.note(f"{job.name} is cancelled")
        raise
    except Exception:
        raise
    except BaseException:  # SIGTERM: there may be no time for more than this
        progress.note(job.continues)
        raise


def follow(
    job: SubmittedJob, *, notify: Notify, log: Notify, wait: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Wait for the end of a job, and return its report.

    Parameters
    ----------
    job : SubmittedJob
    notify : callable
        Receives a message for each new state.
    log : callable
        Receives each line of the job's log.
    wait : callable, default ``time.sleep``
        Waits for a number of seconds.

    Raises
    ------
    InputError
        The job has reported bad input.
    JobError
        The job or the cluster failed, or the connection was lost.
    """
    last_text, seen = "", 0
    while True:
        try:
            state, content = job.state(), _read_text(job.account, f"{job.folder}/{LOG}") or ""
        except FruitsError as error:
            raise type(error)(f"{error}\n{job.continues}") from error
        if state.text != last_text:
            notify(f"{job.name}: {state.text}")
            last_text = state.text
        # While the job runs, the last line may be incomplete.
        lines = (content if state.over else content[: content.rfind("\n") + 1]).splitlines()
        for line in lines[seen:]:
            log(line)
        seen = max(seen, len(lines))
        if state.over:
            return _report(job, state)
        (wait or time.sleep)(POLL_SECONDS)


def confirm_leaving(job: SubmittedJob) -> bool:
    """Ask on the terminal whether an interrupted job continues; without a terminal, or after Ctrl-C, return False."""
    if not sys.stdin.isatty():
        return False
    print(f"\n{job.name} is running on {job.cluster}. Leave it running? [y/N] ", end="", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    return False


def read_log(account: Account, bucket: str, name: str) -> str:
    """Return the log of a job, as far as it is written.

    Raises
    ------
    SettingsError
        The bucket has no log of this job.
    """
    address = f"{job_folder(bucket, name)}/{LOG}"
    text = _read_text(account, address)
    if text is None:
        raise SettingsError(f"{address} does not exist. The job {name} has not started, or it uses another bucket.")
    return text


def _report(job: SubmittedJob, state: JobState) -> dict[str, Any]:
    """Return the report that a job has written to its folder; raise its error, or the reasons that AWS gives."""
    content = _read_text(job.account, f"{job.folder}/{RESULT}")
    result: dict[str, Any] = json.loads(content) if content else {}
    answer = result.get("answer")
    if isinstance(answer, dict) and "error" in answer:
        kind = InputError if result.get("exit_code") == InputError.exit_code else JobError
        raise kind(f"{answer['error']['message']}\n(Error of {job.name} on {job.cluster}. Its log: {job.folder}/{LOG})")
    if isinstance(answer, dict) and state.completed:
        return answer
    why = "; ".join(dict.fromkeys(each.strip().rstrip(".") for each in state.reasons if each and each.strip()))
    # EMR's copy of the log exists even if the job did not start.
    emr_log = f"s3://{job.bucket}/fruits/logs/{job.cluster}/steps/{job.identifier}/stderr.gz"
    text = _read_text(job.account, f"{job.folder}/{LOG}") or _read_text(job.account, emr_log) or ""
    tail = "\n".join(text.rstrip().splitlines()[-TAIL_LINES:])
    raise JobError(
        f"{job.name} on {job.cluster} has ended without a result ({state.text}){f': {why}' if why else ''}. Completed "
        "parts are kept: run the same command again to resume." + (f"\nThe end of its log:\n{tail}" if tail else "")
    )


def _read_text(account: Account, address: str) -> str | None:
    """Return the text of an object, or None if it does not exist."""
    body = account.read(address)
    if body is None:
        return None
    return (gzip.decompress(body) if address.endswith(".gz") else body).decode("utf-8", errors="replace")
