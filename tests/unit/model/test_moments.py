import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.model.moments import FAN_IN, Moments, levels


def integers(words):
    """Return words as an array of Python integers."""
    return sum(word.astype(object) << (50 * number) for number, word in enumerate(words))


def on_grid(features):
    """Return round(x · 2^36) as Python integers."""
    return np.array([[round(float(x) * 2**36) for x in row] for row in features], object).reshape(features.shape)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.integers(1, 6)), elements=st.floats(-1e5, 1e5, width=32))
)
def test_sums_are_those_of_python_integers(features):
    moments = Moments.from_features(features)
    grid = on_grid(features)
    assert moments.count == len(features)
    assert (integers(moments.sums) == grid.sum(axis=0)).all()
    products = grid.T.dot(grid) + np.zeros((features.shape[1],) * 2, object)
    assert (integers(moments.products) == products[np.triu_indices(features.shape[1])]).all()


@pytest.mark.parametrize("shards", [1, 2, 7, 8, 9, 63, 64, 65, 4097, 100_000])
def test_every_level_merges_each_lower_node_once(shards):
    below = shards
    for number, level in enumerate(levels(shards), start=1):
        taken = [index for group in level for index in range(group.start, group.stop)]
        assert taken == list(range(below))
        assert all(group.stop - group.start <= FAN_IN for group in level)
        assert [group.index for group in level] == list(range(len(level)))
        assert {group.level for group in level} == {number}
        below = len(level)
    assert below == 1
