"""The tree of errors.

::

    FruitsError
    ├── InputError            the input is invalid                   exit code 2
    │   ├── DatasetError      the images: missing, empty, unreadable
    │   ├── SettingsError     an option, cluster.yaml, a backend, a missing extra
    │   ├── WeightsError      the weights: missing, or not the verified tensors
    │   ├── ModelError        a fitted model: corrupt, or of another backbone
    │   └── OutputError       the output: contains another job, is a file, is not writable
    └── JobError              the job failed                         exit code 1
        ├── TaskError         a task failed permanently; names its partition
        ├── RejectsError      more images were rejected than allowed
        ├── StorageError      the output folder cannot be read or written: full, missing, forbidden
        └── DamageError       stored parts are corrupt or contradict the plan

Every message states the given value, the allowed values and the remedy, without credentials. It names parameters of
Python in backquotes; the command line shows them as options. ``exit_code`` is the exit code of the command line.
"""

from __future__ import annotations

from fruits.text import without_secrets


class FruitsError(Exception):
    """The base class of all errors of this library."""

    exit_code = 1

    def __init__(self, *texts: str) -> None:
        super().__init__(*map(without_secrets, texts))


class InputError(FruitsError):
    """The input is invalid; the same call will fail again."""

    exit_code = 2


class DatasetError(InputError):
    """The images are missing, empty, contain no image, or cannot be listed."""


class SettingsError(InputError):
    """An option, a configuration file or the name of a backend is invalid, or an extra is not installed."""


class WeightsError(InputError):
    """The weights are missing, or differ from the verified tensors."""


class ModelError(InputError):
    """A fitted model is corrupt, has an unknown schema, or does not fit this job."""


class OutputError(InputError):
    """The output folder contains another job, is a file, or cannot be written."""


class JobError(FruitsError):
    """The job failed; completed work is kept, and the same call resumes it."""


class TaskError(JobError):
    """A task failed permanently on a worker; the message names its partition and the cause."""


class RejectsError(JobError):
    """More images were rejected than ``max_reject_fraction`` allows."""


class StorageError(JobError):
    """The output folder cannot be read or written."""


class DamageError(JobError):
    """Stored parts are corrupt, or contradict each other or the plan."""
