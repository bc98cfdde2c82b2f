"""The file that maps labels to classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from fruits.errors import DatasetError, OutputError
from fruits.storage.addresses import open_store
from fruits.text import brief

HEADER = ["label", "class"]
MAX_BYTES = 64 * 2**20
SHOWN = 3


def read_classes(address: str) -> dict[str, str]:
    """Return the class of each label in a CSV file ``label,class``.

    Raises
    ------
    DatasetError
        The file cannot be read, is not such a file, or maps a label twice.
    """
    name = f"`classes` {address}"
    try:
        store, path = open_store(address)
        text = store.read(path, limit=MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OutputError as error:
        raise DatasetError(f"{name} cannot be read: {error}") from error
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{name} is no CSV file in UTF-8: {error}.") from error
    if not rows or rows[0] != HEADER:
        found = brief(",".join(rows[0])) if rows else "an empty file"
        raise DatasetError(f"{name} begins with {found}. Allowed: the line {','.join(HEADER)}.")
    classes: dict[str, str] = {}
    for line, row in enumerate(rows[1:], 2):
        if not row:  # a blank line
            continue
        if len(row) != 2 or not all(row):
            raise DatasetError(f"{name}, row {line}: {brief(','.join(row))}. Allowed: a label and its class.")
        if row[0] in classes:
            raise DatasetError(f"{name}, row {line}: the label {brief(row[0])} is there twice. Give it one class.")
        classes[row[0]] = row[1]
    return classes


def check_labels(address: str, classes: Mapping[str, str], labels: Iterable[str]) -> None:
    """Raise a ``DatasetError`` if a file maps labels that no source has."""
    if unknown := sorted(classes.keys() - set(labels)):
        names = ", ".join(map(brief, unknown[:SHOWN]))
        more = f" and {len(unknown) - SHOWN:,} more" if len(unknown) > SHOWN else ""
        raise DatasetError(
            f"`classes` {address} maps labels that no source has: {names}{more}. "
            "Correct the names, or remove these rows."
        )
