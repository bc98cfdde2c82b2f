"""Conversion of option values, and of the parameters in messages."""

from __future__ import annotations

import pytest

from fruits.cli.values import name_options, parse_size
from fruits.errors import SettingsError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`out` = x y: is a file", "--out x y: is a file"),
        (
            "`partition_size` = 0: not allowed. Raise `max_reject_fraction`.",
            "--partition-size 0: not allowed. Raise --max-reject-fraction.",
        ),
        ("Give `model`, the `out` of a fit.", "Give --model, the --out of a fit."),
        ("`images` = x: none", "IMAGES x: none"),
        ("Omit `dashboard`, or run `fruits verify` and `dask`", "Omit `dashboard`, or run `fruits verify` and `dask`"),
    ],
)
def test_parameters_are_shown_as_options(message: str, shown: str) -> None:
    assert name_options(message) == shown


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 1_000_000),
        ("256MB", 256_000_000),
        ("1.5 GB", 1_500_000_000),
        ("512MiB", 512 * 2**20),
        ("20k", 20_000),
        ("2T", 2 * 10**12),
    ],
)
def test_sizes_are_numbers_with_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "256 mb", "1e9", "256MB/s", "nan", "9" * 400])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"not a size\. Allowed: a number of bytes, such as 256MB"):
        parse_size(text)
