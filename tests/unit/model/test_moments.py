from fractions import Fraction
from hashlib import sha256
from itertools import pairwise

import numpy as np
import orjson
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.errors import DamageError
from fruits.model.moments import Moments, representable

TINY_TO_LARGE = st.one_of(
    st.floats(-1e5, 1e5, width=32),
    st.floats(0, 6, width=32),
    st.sampled_from([0.0, 1e-20, -1e-20, 2.0**-37, 3 * 2.0**-37, 1e5, 2.0**19 - 1 / 32, -(2.0**19) + 1 / 32]),
)
LABELS = st.sampled_from([None, "", "apple", "Apple", "épinard", "\U0001f34e", "pear"])


@st.composite
def labelled_rows(draw, least=0, most=40):
    shape = draw(st.integers(least, most)), draw(st.integers(1, 5))
    features = draw(hnp.arrays(np.float32, shape, elements=TINY_TO_LARGE.map(np.float32).map(float)))
    if draw(st.booleans()):
        features[:, draw(st.integers(0, shape[1] - 1))] = draw(TINY_TO_LARGE)
    return features, draw(st.lists(LABELS, min_size=shape[0], max_size=shape[0]))


def integers(words):
    """Return words as an array of Python integers."""
    return sum(word.astype(object) << (50 * number) for number, word in enumerate(words))


def on_grid(features):
    """Return round(x · 2^36) as Python integers."""
    return np.array([[round(Fraction(float(x)) * 2**36) for x in row] for row in features], object).reshape(
        features.shape
    )


def assert_sums(moments, features, labels, copies=1):
    grid = on_grid(features)
    upper = np.triu_indices(features.shape[1])
    assert moments.count == copies * len(features)
    assert (integers(moments.sums) == copies * grid.sum(axis=0)).all()
    assert (integers(moments.products) == copies * sum((row[upper[0]] * row[upper[1]] for row in grid), 0)).all()
    assert set(moments.classes) == set(labels)
    for label, part in moments.classes.items():
        own = np.array([other == label for other in labels])
        assert part.count == copies * own.sum()
        assert (integers(part.sums) == copies * grid[own].sum(axis=0)).all()


@given(labelled_rows())
def test_sums_are_those_of_python_integers(rows):
    assert_sums(Moments.from_features(*rows), *rows)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, 1e-20, 7.25, -1e5])
def test_few_and_constant_rows(count, value):
    features = np.full((count, 3), value, np.float32)
    moments = Moments.from_features(features)
    assert_sums(moments, features, [None] * count)
    assert not moments.std().any()
    assert not moments.covariance().any()
    assert not moments.correlation().any()
    assert (moments.mean() == (0 if count == 0 or value == 1e-20 else np.float32(value))).all()


@given(labelled_rows(), st.data())
def test_cuts_orders_and_removals_change_no_bit(rows, data):
    features, labels = rows
    count, dimension = features.shape
    expected = Moments.from_features(features, labels).to_bytes()
    order = data.draw(st.permutations(range(count)))
    features, labels = features[list(order)], [labels[row] for row in order]
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    blocks = [(features[a:b], labels[a:b]) for a, b in pairwise([0, *cuts, count])]
    assert Moments.from_blocks(blocks, dimension).to_bytes() == expected
    parts = [Moments.from_features(*block) for block in blocks]
    assert Moments.sum_all(parts).to_bytes() == expected
    whole = Moments.empty(dimension)
    for part in parts:
        whole += part
    other = Moments.from_features(features[:1] * np.float32(0.5) + np.float32(1e5), labels[:1])
    assert (whole + other + parts[0] - other - parts[0]).to_bytes() == expected
    assert whole - parts[0] == Moments.sum_all([Moments.empty(dimension), *parts[1:]])
    assert whole - whole == Moments.empty(dimension)


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-1e5, 1e5), (-(2.0**18), 2.0**18), (-1e-7, 1e-7)])
@pytest.mark.parametrize("rows", [1024, 2500, 8193])
def test_many_rows_and_cuts(low, high, rows):
    rng = np.random.default_rng(rows)
    features = rng.uniform(low, high, (rows, 9)).astype(np.float32)
    labels = [f"class {number}" for number in np.sort(rng.integers(0, 30, rows))]
    whole = Moments.from_features(features, labels)
    grid = np.rint(features * 2.0**36).astype(np.int64).astype(object)
    assert (integers(whole.products) == grid.T.dot(grid)[np.triu_indices(9)]).all()
    for size in (64, 500, 1024):
        parts = [Moments.from_features(features[a : a + size], labels[a : a + size]) for a in range(0, rows, size)]
        assert Moments.sum_all(reversed(parts)) == whole


def test_blocks_with_other_numbers_of_limbs():
    blocks = [np.full((3, 2), value, np.float32) for value in (1.0, 9.0, 1e-7, 0.0, 1e5, 2.0)]
    whole = Moments.from_blocks([(block, None) for block in blocks], 2)
    assert_sums(whole, np.concatenate(blocks), [None] * 18)


def test_the_largest_values_fill_8192_rows_without_rounding():
    # All limbs at their bounds: the largest sums that float64 must represent.
    value = np.float32(2.0**19 - 1 / 32)
    limbs = np.float32((2**19 - 1) * (2**20 + 1) / 2**36)
    row = np.array([value, -value, limbs], np.float32)
    grid = [int(x * 2.0**36) for x in row.tolist()]
    moments = Moments.from_features(np.tile(row, (8192, 1)))
    assert integers(moments.products).tolist() == [8192 * grid[i] * grid[j] for i in range(3) for j in range(i, 3)]


@given(labelled_rows(3, 3))
def test_one_hundred_million_rows(rows):
    moments = Moments.from_features(*rows)
    for _ in range(25):
        moments += moments
    assert moments.count > 10**8
    assert_sums(moments, *rows, copies=2**25)
    assert Moments.from_bytes(moments.to_bytes()) == moments


def test_the_count_is_limited():
    moments = Moments.from_features(np.ones((2, 1), np.float32))
    for _ in range(37):
        moments += moments
    assert moments.count == 2**38
    with pytest.raises(OverflowError, match=r"549,755,813,888 rows; allowed: fewer"):
        moments + moments


def test_thousands_of_terms_are_added_without_overflow():
    part = Moments.from_features(np.full((3, 2), 2.0**18, np.float32))
    assert Moments.sum_all(part for _ in range(9000)) == Moments.sum_all([Moments.sum_all([part] * 3000)] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**19, -(2.0**19)])
def test_features_beyond_the_grid(value):
    features = np.ones((5, 3), np.float32)
    features[3, 1] = value
    assert representable(features).tolist() == [True, True, True, False, True]
    with pytest.raises(DamageError, match="NaN, infinite, or at least 2\\^19"):
        Moments.from_features(features)
    features[3, 1] = np.nextafter(np.float32(2.0**19), np.float32(0))
    assert representable(features).all()
    assert Moments.from_features(features).count == 5


def test_rows_that_were_never_added_cannot_be_subtracted():
    one, two = (Moments.from_features(np.full((1, 2), value, np.float32), ["a"]) for value in (1, 2))
    with pytest.raises(DamageError, match="class a are subtracted"):
        one - (one + one)
    with pytest.raises(DamageError, match="class a are subtracted"):
        one - two
    with pytest.raises(DamageError, match="class None"):
        one - Moments.from_features(np.ones((1, 2), np.float32))
    with pytest.raises(DamageError, match="negative variance"):
        (one + one + one - two).std()


def test_features_and_labels_of_other_lengths():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and 1 labels; allowed: \(n, 3\), and n labels"):
        Moments.from_features(np.ones((2, 3), np.float32), ["a"])
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and no labels; allowed: \(n, 4\)"):
        Moments.from_blocks([(np.ones((2, 3), np.float32), None)], 4)
    with pytest.raises(ValueError, match="moments of 2 features cannot be added to those of 3"):
        Moments.empty(3) + Moments.empty(2)
    with pytest.raises(ValueError, match="no moments to add"):
        Moments.sum_all([])


def test_class_means_are_in_the_order_of_the_labels():
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    moments = Moments.from_features(features, ["b", None, "a", "b", None])
    assert list(moments.classes) == [None, "a", "b"]
    assert moments.class_means().tolist() == [[5, 6], [4, 5], [3, 4]]
    assert Moments.empty(2).class_means().shape == (0, 2)


@given(labelled_rows())
def test_stored_moments_are_read_back(rows):
    moments = Moments.from_features(*rows)
    again = Moments.from_bytes(moments.to_bytes())
    assert again == moments
    assert again.to_bytes() == moments.to_bytes()


def test_moments_that_differ_are_not_equal():
    features = np.ones((2, 2), np.float32)
    moments = Moments.from_features(features, ["a", "a"])
    assert moments != Moments.from_features(features, ["a", "b"])
    assert moments != Moments.from_features(2 * features, ["a", "a"])
    assert moments != Moments.from_features(features[:1], ["a"])
    assert moments != "moments"


def test_any_changed_or_missing_byte_is_rejected():
    data = Moments.from_features(np.arange(6, dtype=np.float32).reshape(3, 2), ["a", None, "b"]).to_bytes()
    for place in range(len(data)):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            with pytest.raises(ValueError, match="not moments"):
                Moments.from_bytes(changed)


def resealed(**changes):
    """Return stored moments of two classes with other arrays and a valid checksum."""
    data = Moments.from_features(np.arange(6, dtype=np.float32).reshape(3, 2), ["a", "a", "b"]).to_bytes()
    arrays = safetensors.numpy.load(data)
    del arrays["sha256"]
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    digest = sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).digest()
    return safetensors.numpy.save(arrays | {"sha256": np.frombuffer(digest, np.uint8)})


def json(value):
    return np.frombuffer(orjson.dumps(value), np.uint8)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"count": np.array([4])}, "contradict"),
        ({"count": np.array([3, 3])}, "contradict"),
        ({"count": np.array(3)}, "arrays"),
        ({"sums": None}, "arrays"),
        ({"more": np.zeros(1)}, "arrays"),
        ({"sums": np.zeros((1, 2), np.int64)}, "contradict"),
        ({"sums": np.zeros((1, 2))}, "sums of float64"),
        ({"sums": np.zeros((1, 3), np.int64)}, "shape"),
        ({"products": np.zeros((2, 4), np.int64)}, "shape"),
        ({"products": np.zeros((0, 3), np.int64)}, "range"),
        ({"products": np.zeros((2, 3), np.int64)}, "range"),
        ({"products": np.ones((4, 3), np.int64)}, "range"),
        ({"products": np.full((1, 3), 2**49)}, "range"),
        ({"class_counts": np.array([3, 0])}, "counts"),
        ({"class_counts": np.array([1, 2])}, None),  # a sum that is possible, with another checksum
        ({"class_counts": np.array([3])}, "shape"),
        ({"labels": json(["a"])}, "counts"),
        ({"labels": json(["a", "a"])}, "counts"),
        ({"labels": json(["a", 3])}, "counts"),
        ({"labels": json(["a", ["b"]])}, "counts"),
        ({"labels": json({"a": 1, "b": 1})}, "counts"),
        ({"labels": json("ab")}, "counts"),
        ({"labels": json(["b", "a"])}, "contradict"),
        ({"labels": np.frombuffer(b"[", np.uint8)}, "labels"),
        ({"labels": json(["a", "b"]).astype(np.int64)}, "labels of int64"),
    ],
)
def test_contradicting_arrays_are_rejected(changes, problem):
    stored = resealed(**changes)
    if problem is None:
        assert Moments.from_bytes(stored).count == 3
    else:
        with pytest.raises(ValueError, match=f"not moments: .*{problem}"):
            Moments.from_bytes(stored)


def test_moments_of_the_former_format_are_rejected():
    arrays = {"count": np.array([9]), "mean": np.zeros(3), "scatter_upper": np.zeros(6)}
    digest = sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).digest()
    with pytest.raises(ValueError, match="not moments: arrays count, mean, scatter_upper"):
        Moments.from_bytes(safetensors.numpy.save(arrays | {"sha256": np.frombuffer(digest, np.uint8)}))
