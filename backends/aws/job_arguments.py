"""The command line of a job on a cluster, its name, and its folder in the bucket."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from uuid import uuid4

from backends.aws.staging.staged_files import StagedFiles
from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.storage.s3.settings import S3Settings
from fruits.text import without_secrets

POSITIONAL = "images"
NOT_ACCEPTED = {
    "fit": {"model", "format", "columns"},
    "run": {"model"},
    "transform": {"components", "solver", "decode", "crops"},
}
ADDRESSES = ("images", "out", "model", "weights")


def command_line(command: str, job: Job) -> list[str]:
    """Return the arguments of ``fruits`` for a job: the values that differ from the defaults.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : Job

    Raises
    ------
    SettingsError
        An address is local, so the nodes cannot read it.
    """
    return [command, job.images, *_options(command, job)]


def job_prefix(arguments: Sequence[str]) -> str:
    """Return the start of the name of every job with these arguments, by which a running one is found again."""
    return f"fruits-{arguments[0]}-{sha256(json.dumps(list(arguments)).encode()).hexdigest()[:8]}"


def new_name(prefix: str) -> str:
    """Return a name that no other job has."""
    return f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def job_folder(bucket: str, name: str) -> str:
    """Return the address of the folder with the log and the result of a job."""
    return f"s3://{bucket}/fruits/jobs/{name}"


def submit_arguments(name: str, staged: StagedFiles, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of spark-submit for ``fruits ARGUMENTS``: the program of the job, and those of the program.

    The nodes use the S3 settings of this process too.
    """
    s3 = {key: value for key, value in dataclasses.asdict(S3Settings.from_environment()).items() if value}
    # A flat object: YARN removes "}}" from command lines.
    return [staged.step, job_folder(staged.bucket, name), json.dumps(s3), *arguments]


def _options(command: str, job: Job) -> Iterator[str]:
    for field in dataclasses.fields(job):
        value = getattr(job, field.name)
        if field.name in ADDRESSES and value is not None and not value.startswith(("s3://", "s3a://")):
            upload = "" if field.name == "out" else f" Upload it: aws s3 sync {value} s3://my-fruits/{field.name}"
            raise SettingsError(
                f"{field.name} {value}: a local path, which the nodes of a cloud cluster cannot use. "
                f"Give an address such as s3://my-fruits/{field.name}.{upload}"
            )
        if field.name in ADDRESSES and value is not None and without_secrets(value) != value:
            raise SettingsError(
                f"{field.name} {value}: contains credentials, which the arguments of a step would show. "
                "The nodes have a role of their own: give only the bucket and the path."
            )
        if field.name == POSITIONAL or field.name in NOT_ACCEPTED[command] or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{field.name}"
        else:
            yield from (option, ",".join(value) if isinstance(value, tuple) else str(value))
