"""What can go wrong, as one tree.

::

    FruitsError
    ├── InputError            what was given cannot be used          exit code 2
    │   ├── DatasetError      the images: missing, empty, no image, not readable
    │   ├── SettingsError     an option, cluster.yaml, a backend, a missing extra
    │   ├── WeightsError      the weights: not found, not the verified tensors
    │   ├── ModelError        a fitted model: damaged, of another backbone
    │   └── OutputError       --out: another job, a file, not writable
    └── JobError              the job could not be finished          exit code 1
        ├── TaskError         a task failed for good; names its partition
        ├── RejectsError      more images were rejected than allowed
        ├── StorageError      the output folder cannot be read or written: full, gone, forbidden
        └── DamageError       stored parts contradict each other or the plan

Every message says what was given, what is allowed and what to do. ``exit_code`` is what the command line ends with.
"""

from __future__ import annotations

__all__ = [
    "DamageError",
    "DatasetError",
    "FruitsError",
    "InputError",
    "JobError",
    "ModelError",
    "OutputError",
    "RejectsError",
    "SettingsError",
    "StorageError",
    "TaskError",
    "WeightsError",
]


class FruitsError(Exception):
    """The root of everything that this library raises on purpose."""

    exit_code = 1


class InputError(FruitsError):
    """What was given cannot be used; the same call will fail again."""

    exit_code = 2


class DatasetError(InputError):
    """The images are missing, empty, contain no image, or cannot be listed."""


class SettingsError(InputError):
    """An option, a configuration file, or the name of a backend is wrong, or an extra is not installed."""


class WeightsError(InputError):
    """The weights were not found, or are not the tensors that they should be."""


class ModelError(InputError):
    """A fitted model is damaged, of an unknown schema, or does not belong to this job."""


class OutputError(InputError):
    """The output folder holds another job, is a file, or cannot be written."""


class JobError(FruitsError):
    """The job could not be finished; what is done stays done, and the same call goes on from there."""


class TaskError(JobError):
    """A task failed for good on a worker; the message names its partition and the cause."""


class RejectsError(JobError):
    """More images were rejected than ``max_reject_fraction`` allows."""


class StorageError(JobError):
    """The output folder cannot be read or written."""


class DamageError(JobError):
    """Stored parts contradict each other or the plan."""
