"""Options of the commands around recognisers."""

from __future__ import annotations

from typing import Annotated, Literal

from fruits.cli import options
from fruits.cli.values import check_address

RecogniserFolder = Annotated[
    str, options.address("--recogniser", metavar="REC", help="The recogniser: the --out of a training.")
]
Method = Annotated[
    Literal["prototypes", "linear"],
    options.choice(
        options.computation,
        "--method",
        "prototypes",
        "linear",
        help="prototypes, or linear: one direction for each label, which is smaller and less accurate.",
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
