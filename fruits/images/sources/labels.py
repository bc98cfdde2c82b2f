"""Labels that a regular expression finds in the paths of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from fruits.errors import DatasetError
from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import LABEL, ImageEntry
from fruits.images.sources.options import label_pattern
from fruits.images.sources.source import Content, Source
from fruits.storage.parquet import text_array
from fruits.text import brief, bytes_name, name_bytes, printable


@dataclass(frozen=True, slots=True)
class PathLabels:
    """The images of another source, labelled by their paths instead.

    Attributes
    ----------
    source : Source
    expression : str
        A regular expression that is searched in each path. The label is its group ``label``, or else its first group;
        if that group is empty or did not take part, the image has no label. A path without a match is an error.
    """

    source: Source
    expression: str

    @property
    def address(self) -> str:
        """The address of the source."""
        return self.source.address

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`.

        Raises
        ------
        DatasetError
            A path has no match.
        """
        pattern = label_pattern(self.expression)
        group = pattern.groupindex.get("label", 1)
        for table in self.source.tables(skipped, limit):
            labels = []
            for data in table["path"].to_pylist():
                path = bytes_name(data)
                match = pattern.search(path)
                if match is None:
                    raise DatasetError(
                        f"`label_regex` {brief(self.expression)} does not match the path {printable(brief(path))}. "
                        "Every path needs a match: extend the expression, with an optional group for images without "
                        "a label, or remove the file."
                    )
                labels.append(name_bytes(match[group] or "") or None)
            column = text_array(labels, pa.binary())
            others = table.drop_columns(["label"]) if "label" in table.column_names else table
            yield others.add_column(3, LABEL, column)

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        return self.source.read(entries)
