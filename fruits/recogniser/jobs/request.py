"""The request of a training as one frozen value."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fruits.errors import SettingsError
from fruits.images.sources.options import SourceOptions
from fruits.parameters import address, check_choice, check_fraction, switch, whole_number
from fruits.recogniser.methods import METHODS, Method
from fruits.text import brief, counted

MOST_WEIGHT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The sources and settings of a recogniser. Validated on construction; paths may be path objects.

    Attributes
    ----------
    sources : tuple of str
        Outputs with features, or image folders, which are featurized into ``sources/`` below `out`.
    out : str
        The folder of the recogniser.
    classes : str, optional
        A CSV file ``label,class``. Labels that it does not contain are classes of their own.
    weights : tuple of int, optional
        The weight of each source, 1 to 1,000; default: 1.
    crops : {1, 2}, default 1
        2: recognise the whole image and its centre, which suits photographs.
    method : {"prototypes", "linear"}, default "prototypes"
        ``prototypes``: up to 64 directions for each label. ``linear``: one; smaller, faster, and less accurate.
    backgrounds : str, optional
        A folder of photographs, onto which the images of folders in `sources` are pasted if their border is white.
    unknown : str, optional
        A source whose images belong to no class.
    test : str, optional
        A source to evaluate the recogniser on, into ``test/`` below `out`.
    image_column, path_column, label_column, label_regex : str, optional
        Where images, paths and labels are, in the sources that are no outputs; as in :class:`fruits.Job`.
    max_reject_fraction : float, default 0.1
        The training fails if a larger fraction of the images of a folder cannot be used.
    overwrite : bool, default False
        Replace another recogniser in `out`. Features of unchanged images in ``sources/`` are used again.
    report : bool, default True
        Write a report as one page, also of the folders that are featurized. See :func:`fruits.write_report`.

    Raises
    ------
    SettingsError
        A value is not allowed.
    """

    sources: tuple[str, ...]
    out: str
    classes: str | None = None
    weights: tuple[int, ...] | None = None
    crops: int = 1
    method: Method = "prototypes"
    backgrounds: str | None = None
    unknown: str | None = None
    test: str | None = None
    image_column: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    label_regex: str | None = None
    max_reject_fraction: float = 0.1
    overwrite: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        given = (self.sources,) if isinstance(self.sources, str | os.PathLike) else tuple(self.sources)
        if not given:
            raise SettingsError("`sources` is empty. Give at least one output with features, or folder of images.")
        values: dict[str, object] = {
            "sources": tuple(address("sources", source) for source in given),
            "out": address("out", self.out),
            "crops": whole_number("crops", self.crops),
            "overwrite": switch("overwrite", self.overwrite),
            "report": switch("report", self.report),
        }
        for name in ("classes", "backgrounds", "unknown", "test"):
            if (value := getattr(self, name)) is not None:
                values[name] = address(name, value)
        if self.weights is not None:
            values["weights"] = tuple(whole_number("weights", weight) for weight in self.weights)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.source_options()  # raises if one is not allowed
        check_choice("method", self.method, METHODS)
        check_fraction("max_reject_fraction", self.max_reject_fraction)
        if self.crops not in (1, 2):
            raise SettingsError(f"`crops` = {self.crops}: not allowed. Allowed: 1, or 2.")
        if len(self.source_weights) != len(self.sources):
            raise SettingsError(
                f"`weights` has {counted(len(self.source_weights), 'value')} for "
                f"{counted(len(self.sources), 'source')}. Give one for each."
            )
        if wrong := [weight for weight in self.source_weights if not 1 <= weight <= MOST_WEIGHT]:
            raise SettingsError(f"`weights` = {brief(wrong[0])}: not allowed. Allowed: 1 to {MOST_WEIGHT:,}.")

    def source_options(self) -> SourceOptions:
        """Return the options of the sources that are no outputs, as one value."""
        names = ("image_column", "path_column", "label_column", "label_regex")
        return SourceOptions(**{name: getattr(self, name) for name in names})

    @property
    def source_weights(self) -> tuple[int, ...]:
        """The weight of each source."""
        return (1,) * len(self.sources) if self.weights is None else self.weights
