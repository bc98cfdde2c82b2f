"""The options of sources as one value."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from fruits.errors import SettingsError
from fruits.text import quoted


def label_pattern(expression: str) -> re.Pattern[str]:
    """Return a compiled ``label_regex``: its label is the group ``label``, or else the first group.

    Raises
    ------
    SettingsError
        It is no regular expression of Python, or has no group.
    """
    try:
        pattern = re.compile(expression)
        if not pattern.groups:
            raise re.error("it has no group")
    except re.error as error:
        raise SettingsError(
            f"`label_regex` = {quoted(expression)}: {error}. Allowed: a regular expression of Python with parentheses "
            r"around the part of the path that is the label, such as ([a-z]+)_\d+\.jpg$."
        ) from error
    return pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Options that select and label the images of a source. Validated on construction.

    Each kind of source allows some of them; see :data:`fruits.images.sources.kinds.KINDS`.

    Attributes
    ----------
    label_regex : str, optional
        Label images by their paths; see :class:`fruits.images.sources.labels.PathLabels`.
    image_column : str, optional
        The column of Parquet files that contains the images; see
        :class:`fruits.images.sources.tables.image_table.ImageTableSource`.
    path_column, label_column, version_column : str, optional
        Columns of a manifest, see :class:`fruits.images.sources.tables.manifest.ManifestSource`; the first two also of
        Parquet files that contain the images.
    follow_links, include_hidden : bool, default False
        Of a folder; see :class:`fruits.images.sources.folder.FolderSource`.

    Raises
    ------
    SettingsError
        A value is not allowed.
    """

    label_regex: str | None = None
    image_column: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    version_column: str | None = None
    follow_links: bool = False
    include_hidden: bool = False

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name not in ("follow_links", "include_hidden") and (not isinstance(value, str) or not value):
                raise SettingsError(f"`{name}` = {quoted(value)}: not allowed. Allowed: a text that is not empty.")
        if self.label_regex is not None:
            label_pattern(self.label_regex)
            if self.label_column is not None:
                raise SettingsError("`label_regex` with `label_column`: not allowed. Give one of them.")

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        return {field.name: value for field, value in values if value != field.default}
