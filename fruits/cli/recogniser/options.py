"""Options of the commands around recognisers."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fruits.cli import options
from fruits.cli.values import check_address

RecogniserFolder = Annotated[
    str,
    typer.Option(
        "--recogniser",
        metavar="REC",
        help="The recogniser: the --out of a training.",
        show_default=False,
        callback=check_address,
    ),
]
Method = Annotated[
    Literal["prototypes", "linear"],
    options.computation(
        "--method",
        metavar="NAME",
        parser=str,
        help="prototypes, or linear: one direction for each label, which is smaller and less accurate.",
        autocompletion=options.one_of("prototypes", "linear"),
    ),
]
Backgrounds = Annotated[
    str | None,
    options.computation(
        "--backgrounds",
        metavar="FOLDER",
        help="Paste images with a white border onto these photographs, to train a recogniser of photographs.",
        callback=check_address,
    ),
]
