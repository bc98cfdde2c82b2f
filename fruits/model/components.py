"""Principal components: their number and their signs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fruits.errors import DatasetError, SettingsError
from fruits.text import counted

Float64 = npt.NDArray[np.float64]


def check_components(components: int | float, rows: int, dimension: int) -> None:
    """Raise an error if `rows` rows of `dimension` features do not have that many components.

    Raises
    ------
    DatasetError
        There are fewer than two rows.
    SettingsError
        The count exceeds min(rows - 1, dimension).
    """
    if rows < 2:
        raise DatasetError(f"{counted(rows, 'usable image')}: a model needs at least 2. Give more images.")
    most = min(rows - 1, dimension)
    if isinstance(components, int) and components > most:
        raise SettingsError(
            f"`components` = {components}: {rows:,} images of {dimension:,} features have at most "
            f"{counted(most, 'component')}. Allowed: 1 to {most:,}, or a fraction of variance above 0 and up to 1."
        )


def choose_components(ratio: Float64, components: int | float, rows: int) -> int:
    """Return the number of components to keep: the count, or the fewest that reach the fraction of variance.

    Parameters
    ----------
    ratio : ndarray of shape (m,), float64
        The explained variance ratio of every component, decreasing.
    components : int or float
        A count, or a fraction in (0, 1]. A fraction never selects components beyond the numerical rank, whose variance
        is a rounding error.
    rows : int
        The number of training rows, which bounds the rank by rows - 1.
    """
    if isinstance(components, int):
        return components
    reached = int(np.searchsorted(np.cumsum(ratio), components)) + 1
    tolerance = ratio[0] * len(ratio) * np.finfo(np.float64).eps  # as in numpy.linalg.matrix_rank
    return min(reached, rows - 1, int(np.count_nonzero(ratio > tolerance)))


def fix_signs(components: Float64) -> Float64:
    """Return the components, (k, d), each with its largest-magnitude loading (the first of equals) positive."""
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
    return np.ascontiguousarray(components * signs[:, None])
