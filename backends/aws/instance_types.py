"""Sizes of EC2 instance types."""

from __future__ import annotations

from fruits.errors import SettingsError

__all__ = ["vcpus"]

VCPUS = {"large": 2, "xlarge": 4}  # and 4 times N for Nxlarge


def vcpus(instance_type: str) -> int:
    """Return the number of vCPUs of an instance type, by its size.

    Raises
    ------
    SettingsError
        The size is not one of ``large``, ``xlarge``, ``2xlarge``, …
    """
    size = instance_type.partition(".")[2]
    if size in VCPUS:
        return VCPUS[size]
    number = size.removesuffix("xlarge")
    if not (size.endswith("xlarge") and number.isdecimal()):
        raise SettingsError(f"{instance_type}: unknown size. Allowed: large, xlarge, 2xlarge, ….")
    return 4 * int(number)
