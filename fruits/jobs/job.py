"""The job: the request of a user as one frozen value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal

from fruits.errors import SettingsError
from fruits.images.sources.options import SourceOptions
from fruits.network.backbones import backbone
from fruits.parameters import address, check_choice, check_fraction, switch, whole_number
from fruits.text import quoted, without_secrets

COLUMNS = ("path", "label", "features", "scaled_features", "pca_features")
FITTING = ("fit", "run")  # commands that fit a model; the others apply one, or a recogniser
DECODE_MODES = ("reduced", "full")
ENGINES = ("openvino", "tensorflow")
FORMATS = ("parquet", "csv")
SOLVERS = ("exact", "native")
CHOICES = {"engine": ENGINES, "decode": DECODE_MODES, "solver": SOLVERS, "format": FORMATS}
SHARDS = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)
# A worker holds the rows of a partition and their encoded copy: 60 KB an image as Parquet, 80 KB as CSV at 1280
# features. The largest partition thus takes 1.3 GB.
MOST_IN_A_PARTITION = 16_384
MAX_CROPS = 2
MOST_IMAGES = 2**63 - 1  # the plan counts in 64 bits
MOST = {"crops": MAX_CROPS, "partition_size": MOST_IN_A_PARTITION, "limit": MOST_IMAGES, "sample": MOST_IMAGES}
CONVERSIONS: dict[str, Callable[[str, Any], object]] = {
    **dict.fromkeys(("images", "out", "weights", "backgrounds", "model", "recogniser"), address),
    **dict.fromkeys(("crops", "partition_size", "limit", "sample", "seed"), whole_number),
    **dict.fromkeys(
        ("follow_links", "include_hidden", "overwrite", "update", "keep_model", "keep_plan", "report"), switch
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Job:
    r"""The images, settings and output of one job. Validated on construction; paths may be path objects.

    Attributes
    ----------
    images : str
        The source of the images, at a local path or any fsspec URL: a folder, ``<label>/<file>``; a manifest,
        ``.parquet``, ``.csv`` or ``.jsonl``; or Parquet files that contain the images. Or the output of a fit or a
        run, whose stored features are used.
    out : str
        The output folder.
    components : int or float, default 0.95
        The number of components to keep, at least 1, or the fraction of variance to reach, in (0, 1].
    backbone : str, optional
        The Keras application that computes the features. Default: ``MobileNetV2``, or that of the model.
    engine : {"openvino", "tensorflow"}, optional
        The runtime of the network. Default: ``openvino``, or that of the model.
    weights : str, optional
        The address of the network's weights. Default: see :func:`fruits.network.weights.find_weights`.
    decode : {"reduced", "full"}, optional
        ``reduced``: decode large JPEGs at 1/2, 1/4 or 1/8 of their size, several times faster. ``full``: at full size.
        See :class:`fruits.images.decode.Decoding`. Default: ``reduced``, or that of the model.
    crops : {1, 2}, default 1
        2: also store the features of the centre crop of each image, as ``crop_features`` beside ``features``. The
        model and the rows do not use them.
    backgrounds : str, optional
        For a fit: a folder of photographs. Images with a white border are cut out and pasted onto them before the
        network runs; see :mod:`fruits.images.pasting`. A recogniser of photographs learns more from such features.
    solver : {"exact", "native"}, default "exact"
        ``exact``: the moments of this library, with the same bits on every backend. ``native``: the estimators of
        dask-ml or Spark ML.
    format : {"parquet", "csv"}, default "parquet"
        The format of the rows.
    columns : tuple of str, default all of :data:`COLUMNS`
        The columns of the rows.
    partition_size : int, optional
        Images per partition, up to 16,384. A partition is the unit of work, and of repeated work when a worker dies; no
        result depends on it. Default: as many for each worker, at least three, of at most 1,024 images. Large images
        are fewer: at most 1 GiB, also of a given size.
    limit : int, optional
        Use only the first images, up to this number, in the order of their paths: those of the first labels.
    sample : int, optional
        Use only a sample of this size, with images of every label: of each its share, but at least one. It is chosen
        by a hash of the paths, so that the same images give the same sample. Excludes `limit`.
    seed : int, default 0
        Another seed gives another sample.
    image_column : str, optional
        For Parquet files that contain the images: the column of the images, such as ``image.bytes``.
    path_column : str, optional
        For a manifest: the column of the paths, relative to the manifest or absolute.
    label_column : str, optional
        For both of them: the column of the labels. Default: the label is the folder in the path.
    version_column : str, optional
        For a manifest: the column of a value that changes when the image is rewritten. Default: versions are unknown.
    label_regex : str, optional
        A regular expression that is searched in the path of each image, such as ``([a-z]+)_\d+\.jpg$``. The label is
        its group ``label``, or else its first group. A path without a match is an error. Default: the label is the
        folder in the path.
    follow_links : bool, default False
        Follow links to folders, and to files outside the image folder. Links to files inside it are always followed.
    include_hidden : bool, default False
        Include hidden files and folders, whose names start with a dot, and folders of systems and tools, such as
        ``__MACOSX``.
    max_reject_fraction : float, default 0.1
        The job fails if a larger fraction of the images cannot be used.
    overwrite : bool, default False
        Replace another job in `out`. Its features are used again if they are those of the same network and decoding.
    update : bool, default False
        Bring a fit or a run in `out` to the current images: only added and changed images are featurized, and the
        result is the same as that of a new job. Images without a version, such as those of most web servers, count as
        changed.
    keep_model : bool, default False
        With `update`, for a run: keep the stored model, and write the rows of added and changed images with it. By
        default, the model is fitted to the current images, and all rows are written again.
    model : str, optional
        For a transform: the folder of the fitted model, or the `out` of the job that fitted it.
    recogniser : str, optional
        For predictions: the folder of the recogniser.
    shards : str, optional
        ``"i/n"``: only featurize the i-th of n contiguous slices of the partitions. The same job without it completes
        the missing partitions and finishes the job.
    keep_plan : bool, default False
        Resume with the plan that is stored in `out`, without listing the images again. Images that were removed or
        changed since become rejects; added images are not seen.
    report : bool, default True
        For fit, run and transform: write the run report, a page of at most 2 MB, when the job is complete. See
        :func:`fruits.write_report`.

    Raises
    ------
    SettingsError
        A value is not allowed.
    """

    images: str
    out: str
    components: int | float = 0.95
    backbone: str | None = None
    engine: Literal["openvino", "tensorflow"] | None = None
    weights: str | None = None
    decode: Literal["reduced", "full"] | None = None
    crops: int = 1
    backgrounds: str | None = None
    solver: Literal["exact", "native"] = "exact"
    format: Literal["parquet", "csv"] = "parquet"
    columns: tuple[str, ...] = COLUMNS
    partition_size: int | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    image_column: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    version_column: str | None = None
    label_regex: str | None = None
    follow_links: bool = False
    include_hidden: bool = False
    max_reject_fraction: float = 0.1
    overwrite: bool = False
    update: bool = False
    keep_model: bool = False
    model: str | None = None
    recogniser: str | None = None
    shards: str | None = None
    keep_plan: bool = False
    report: bool = True

    def __repr__(self) -> str:
        """Return the settings that differ from the defaults, without credentials."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        given = (f"{field.name}={quoted(value)}" for field, value in values if value != field.default)
        return without_secrets(f"Job({', '.join(given)})")

    def source_options(self) -> SourceOptions:
        """Return the options of the source as one value."""
        return SourceOptions(**{field.name: getattr(self, field.name) for field in fields(SourceOptions)})

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is None and field.default not in (None, MISSING):
                raise SettingsError(
                    f"`{field.name}` = None: not allowed. Leave it out for its default, {quoted(field.default)}."
                )
        for name, convert in CONVERSIONS.items():
            if (value := getattr(self, name)) is not None or name in ("images", "out"):
                object.__setattr__(self, name, convert(name, value))
        self.source_options()  # raises if one is not allowed
        for name in ("components", "max_reject_fraction"):
            if isinstance(value := getattr(self, name), Real) and not isinstance(value, bool):  # also of NumPy
                object.__setattr__(self, name, int(value) if isinstance(value, Integral) else float(value))
        if isinstance(self.columns, str):
            raise SettingsError(f"`columns` = {self.columns!r}: not allowed. Allowed: names, as ({self.columns!r},).")
        if not isinstance(self.columns, Sequence) or not all(isinstance(name, str) for name in self.columns):
            raise SettingsError(
                f"`columns` = {quoted(self.columns)}: not allowed. Allowed: names, as ('path', 'label')."
            )
        if isinstance(self.components, bool) or not (
            (isinstance(self.components, int) and self.components >= 1)
            or (isinstance(self.components, float) and 0 < self.components <= 1)
        ):
            raise SettingsError(
                f"`components` = {self.components}: not allowed. "
                "Allowed: a count of at least 1, or a fraction of variance above 0 and up to 1, such as 0.95."
            )
        if self.backbone is not None:
            backbone(self.backbone)
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) is not None:
                check_choice(name, value, allowed)
        if unknown := [column for column in self.columns if column not in COLUMNS]:
            raise SettingsError(f"`columns` = {','.join(unknown)}: not known. Allowed: {', '.join(COLUMNS)}.")
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise SettingsError(
                f"`columns` = {','.join(self.columns)}: name at least one column, and each once. "
                f"Allowed: {', '.join(COLUMNS)}."
            )
        for name, most in MOST.items():
            if (count := getattr(self, name)) is not None and not 1 <= count <= most:
                raise SettingsError(f"`{name}` = {count}: not allowed. Allowed: 1 or more, up to {most:,}.")
        if self.seed and self.sample is None:
            raise SettingsError(f"`seed` = {self.seed}: not allowed without `sample`. Give both.")
        if not -MOST_IMAGES <= self.seed <= MOST_IMAGES:
            raise SettingsError(f"`seed` = {self.seed}: not allowed. Allowed: -{MOST_IMAGES:,} to {MOST_IMAGES:,}.")
        if self.sample is not None and self.limit is not None:
            raise SettingsError("`limit` with `sample`: not allowed. Give one of them.")
        check_fraction("max_reject_fraction", self.max_reject_fraction)
        if self.shards is not None:
            given = SHARDS.fullmatch(str(self.shards))
            if given is None or int(given[1]) > int(given[2]):
                raise SettingsError(
                    f"`shards` = {self.shards}: not allowed. Allowed: i/n, the i-th of n slices, such as 1/4 to 4/4."
                )
            if self.overwrite:
                raise SettingsError(
                    f"`overwrite` with `shards` {self.shards}: not allowed, because it would remove the parts of "
                    "other slices. Leave `overwrite` out, or give another `out`."
                )
        if self.update and (other := [name for name in ("overwrite", "keep_plan", "shards") if getattr(self, name)]):
            raise SettingsError(f"`update` with `{other[0]}`: not allowed. Give one of them.")
        if self.keep_model and not self.update:
            raise SettingsError("`keep_model` without `update`: not allowed. Give both.")
        if self.keep_plan and self.overwrite:
            raise SettingsError(
                "`overwrite` with `keep_plan`: not allowed, because `overwrite` removes the stored plan. Give one."
            )
