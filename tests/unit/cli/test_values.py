"""Conversion of option values, and of the parameters in messages."""

from __future__ import annotations

import pytest

from fruits.cli.values import name_options


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
