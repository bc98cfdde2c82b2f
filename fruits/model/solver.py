"""Solve the model: standardisation and PCA from the moments of the features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fruits.errors import DatasetError
from fruits.model.components import check_components, choose_components, fix_signs
from fruits.model.eigh import eigh
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA


def solve(moments: Moments, components: int | float, *, network: Mapping[str, str] | None = None) -> ScaledPCA:
    """Return the model of the rows that `moments` summarises.

    Parameters
    ----------
    moments : Moments
        Moments of at least two rows.
    components : int or float
        A count of at most min(n - 1, d), or the fraction of variance to keep, in (0, 1].
    network : mapping, optional
        The network that computed the features.

    Raises
    ------
    DamageError
        The moments contradict each other: rows were subtracted that they did not contain.
    DatasetError
        There are fewer than two rows, or no feature varies.
    SettingsError
        The count exceeds the number of components.
    """
    check_components(components, moments.count, moments.dimension)
    scale = moments.std()
    if not scale.any():
        raise DatasetError(f"no feature varies: all {moments.count:,} images are alike. Give images that differ.")
    values, vectors = eigh(moments.correlation())
    values = np.ascontiguousarray(np.maximum(values[::-1], 0.0))  # rounding can make the smallest ones negative
    kept = choose_components(values / values.sum(), components, moments.count)
    return ScaledPCA(
        mean=moments.mean(),
        scale=scale,
        components=fix_signs(vectors.T[::-1][:kept]),
        eigenvalues=values,
        rows=moments.count,
        network=dict(network or {}),
    )
