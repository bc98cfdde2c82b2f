"""A job as the words of a command line: what a step on a cluster is started with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fruits.errors import SettingsError
from fruits.jobs.job import Job

__all__ = ["command_line"]

POSITIONAL = "images"
NOT_OF = {"fit": {"model", "format", "columns"}, "run": {"model"}, "transform": {"components", "solver"}}
ADDRESSES = ("images", "out", "model", "weights")


def command_line(command: str, job: Job) -> list[str]:
    """Return the words after ``fruits`` that ask for a job, with all that differs from the defaults.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : Job

    Raises
    ------
    SettingsError
        An address is one of this machine, which the nodes of a cluster do not see.
    """
    return [command, job.images, *_options(command, job)]


def _options(command: str, job: Job) -> Iterator[str]:
    for field in dataclasses.fields(job):
        value = getattr(job, field.name)
        if field.name in ADDRESSES and value is not None and not value.startswith(("s3://", "s3a://")):
            raise SettingsError(
                f"{field.name} {value}: the nodes of a cluster in the cloud do not see it. "
                "Upload the folder with `aws s3 sync FOLDER s3://my-fruits/images`, and give that address."
            )
        if field.name == POSITIONAL or field.name in NOT_OF[command] or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option
        else:
            yield from (option, ",".join(value) if isinstance(value, tuple) else str(value))
