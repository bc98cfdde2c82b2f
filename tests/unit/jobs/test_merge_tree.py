"""The tree in which partial moments are merged."""

from hypothesis import given
from hypothesis import strategies as st

from fruits.jobs.tasks.moments import FAN_IN, ROWS, levels


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=400))
def test_every_part_is_merged_once_and_nodes_are_large(rows):
    tree = levels(rows)
    assert len(tree[-1]) == 1
    below = len(rows)
    for number, level in enumerate(tree, 1):
        assert [group.level for group in level] == [number] * len(level)
        assert [group.index for group in level] == list(range(len(level)))
        assert [group.start for group in level] == [0, *(group.stop for group in level[:-1])]
        assert level[-1].stop == below
        below = len(level)
    for group in tree[0][:-1]:
        assert sum(rows[group.start : group.stop]) >= ROWS
        assert sum(rows[group.start : group.stop - 1]) < ROWS
    assert all(group.stop - group.start <= FAN_IN for level in tree[1:] for group in level)
