import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from fruits.model import moments
from fruits.model.moments import FAN_IN, Moments, levels

shards = st.lists(
    st.integers(0, 12).flatmap(
        lambda rows: hnp.arrays(np.float32, (rows, 5), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False))
    ),
    min_size=1,
    max_size=20,
)


def tree_of(parts):
    """Merge like a job: level by level, each group from left to right."""
    nodes = [Moments.from_features(part) for part in parts]
    for level in levels(len(parts)):
        nodes = [Moments.merge_all(nodes[group.start : group.stop]) for group in level]
    (whole,) = nodes
    return whole


@given(shards)
def test_tree_agrees_with_numpy_on_all_rows(parts):
    rows = np.concatenate(parts).astype(np.float64)
    whole = tree_of(parts)
    assert whole.count == len(rows)
    if len(rows) > 1:
        np.testing.assert_allclose(whole.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(whole.scatter / (len(rows) - 1), np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-6)


@given(shards)
def test_scatter_is_exactly_symmetric(parts):
    scatter = tree_of(parts).scatter
    assert np.array_equal(scatter, scatter.T)


@given(shards)
def test_stored_moments_are_read_back_bit_for_bit(parts):
    whole = tree_of(parts)
    again = Moments.from_bytes(whole.to_bytes())
    assert again.count == whole.count
    assert again.mean.tobytes() == whole.mean.tobytes()
    assert again.scatter.tobytes() == whole.scatter.tobytes()


@pytest.mark.parametrize("numbers", [0, 1, 5, 7])
def test_scatter_of_wrong_size_is_rejected(numbers):
    arrays = {"count": np.array([9]), "mean": np.zeros(3), "scatter_upper": np.zeros(numbers)}
    stored = save(arrays | {"sha256": moments._checksum(arrays)})
    with pytest.raises(ValueError, match=f"not moments: {numbers} numbers for the scatter of 3 features"):
        Moments.from_bytes(stored)


def test_large_offset_causes_no_cancellation():
    # E[xy] - E[x]E[y] in float64 would have an error of 1e-4 here.
    rng = np.random.default_rng(0)
    rows = (1e6 + rng.integers(0, 8, (4096, 3)) / 8).astype(np.float32)
    whole = tree_of(np.split(rows, 16))
    exact = np.cov((rows - np.float32(1e6)).astype(np.float64), rowvar=False)
    np.testing.assert_allclose(whole.scatter / 4095, exact, atol=1e-11)


@given(st.floats(-1e6, 1e6, width=32), st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_constant_feature_has_a_scatter_of_exactly_zero(value, sizes):
    whole = tree_of([np.full((size, 2), value, np.float32) for size in sizes])
    assert not whole.scatter.any()
    if whole.count:
        assert (whole.mean == np.float64(np.float32(value))).all()


def test_empty_shard_changes_no_bit():
    rng = np.random.default_rng(1)
    part = Moments.from_features(rng.standard_normal((9, 4)).astype(np.float32))
    empty = Moments.from_features(np.empty((0, 4), np.float32))
    for merged in (part.merge(empty), empty.merge(part)):
        assert merged.count == 9
        assert merged.scatter.tobytes() == part.scatter.tobytes()


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
