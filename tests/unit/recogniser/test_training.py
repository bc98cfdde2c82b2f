"""Training from class moments and samples: the result, and its independence of partitions and of the CPU."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fruits.errors import DatasetError, ModelError
from fruits.model.moments import Moments
from fruits.recogniser.evaluation.leave_out import choose_labels, leave_out
from fruits.recogniser.files import read_recogniser, write_recogniser
from fruits.recogniser.recogniser import Recogniser
from fruits.recogniser.scoring import Scores
from fruits.recogniser.training.calibration import calibrate
from fruits.recogniser.training.fitting import Source, group_statistics
from fruits.recogniser.training.holdout import is_held_out
from fruits.recogniser.training.prototypes import prototypes_of_group
from fruits.recogniser.training.records import picture_key, stored_recogniser, stored_sources
from fruits.recogniser.training.sample import Sample, rows_per_label
from fruits.recogniser.training.training import Trained, train
from fruits.storage.folder import Folder
from tests.cpus import usable_kernels

DIMENSION = 40
NETWORK = {"backbone": "MobileNetV2", "engine": "openvino", "weights": "ab" * 32, "decoding": "reduced"}

pytestmark = pytest.mark.usefixtures("solver_in_this_process")


def make_images(labels: int, each: int, *, crops: int = 1, seed: int = 0, dimension: int = DIMENSION, offset: int = 0):
    """Return paths, labels and features, (n, crops, d), of labels whose means differ more than their images."""
    random = np.random.default_rng(seed)
    means = np.random.default_rng(99).uniform(0, 6, (offset + labels, dimension))[offset:]
    noise = random.normal(0, 0.6, (labels * each, crops, dimension))
    names = [f"label {offset + number // each:03}" for number in range(labels * each)]
    paths = [f"{name}/{hashlib.md5(f'{seed} {number}'.encode()).hexdigest()}.png" for number, name in enumerate(names)]
    return paths, names, np.clip(means.repeat(each, axis=0)[:, None] + noise, 0, 6).astype(np.float32)


def make_source(paths, labels, features, *, weight=1, classes="own", cut=10**6, most=64) -> Source:
    """Return the source of images whose partitions have `cut` images, merged in reverse order."""
    parts = []
    for start in range(0, len(paths), cut):
        own = slice(start, start + cut)
        held = np.array([is_held_out(path) for path in paths[own]])
        crops, dimension = features.shape[1:]
        moments = [
            Moments.from_features(
                features[own][chosen].reshape(-1, dimension), np.repeat(np.array(labels[own])[chosen], crops).tolist()
            )
            for chosen in (~held, held)
        ]
        parts.append((*moments, Sample.choose(paths[own], labels[own], features[own], most)))
    fit, held_out, samples = zip(*reversed(parts), strict=True)
    mapping = dict(zip(labels, labels, strict=True)) if classes == "own" else classes
    return Source(Moments.sum_all(fit), Moments.sum_all(held_out), Sample.merge(samples, most), weight, mapping)


def accuracy(trained: Trained, labels: list[str], features: np.ndarray) -> float:
    scores = trained.scorer.scores(features, len(trained.labels))
    return float(
        np.mean(
            [
                trained.labels[best] == label
                for best, label in zip(scores.similarity[:, :-1].argmax(axis=1), labels, strict=True)
            ]
        )
    )


def digest(trained: Trained) -> str:
    arrays = [getattr(trained.scorer, name) for name in trained.scorer.__dataclass_fields__]
    parts = [*(np.ascontiguousarray(array).tobytes() for array in arrays), repr(trained.calibration).encode()]
    return hashlib.sha256(b"".join([*parts, repr(trained.representatives).encode()])).hexdigest()


def test_new_images_of_the_labels_are_recognised() -> None:
    trained = train([make_source(*make_images(12, 30))])
    _, labels, features = make_images(12, 20, seed=1)
    assert accuracy(trained, labels, features) > 0.98
    assert trained.counts == {f"label {number:03}": 30 for number in range(12)}
    assert 0.001 < trained.calibration.decision.temperature < 1
    assert trained.calibration.images > 30


def test_thresholds_keep_95_percent_of_new_images_and_reject_other_labels() -> None:
    trained = train([make_source(*make_images(12, 150))])
    decision = trained.calibration.decision
    _, _, known = make_images(12, 60, seed=1)
    _, _, others = make_images(12, 20, seed=2, offset=12)
    kept = decision.decide(trained.scorer.scores(known, 12)).reasons == 0
    rejected = decision.decide(trained.scorer.scores(others, 12)).reasons > 0
    assert 0.88 < kept.mean() < 0.99
    assert rejected.mean() > 0.95


def make_scores(images: int) -> tuple[Scores, np.ndarray]:
    """Return scores for four classes, the last of them mostly the true one, and the true classes."""
    random = np.random.default_rng(0)
    similarity = np.c_[random.uniform(0, 0.5, (images, 4)), np.full(images, -1.0)]
    similarity[:, 3] += random.uniform(-0.1, 0.5, images)
    scores = Scores(similarity, random.lognormal(size=images), np.zeros((images, 3), np.int64))
    return scores, np.where(random.random(images) < 0.1, 0, 3)


def test_5_percent_of_the_weight_of_the_held_out_images_is_rejected() -> None:
    scores, classes = make_scores(2000)
    weights = np.where(np.arange(2000) % 2, 1.0, 3.0)
    decision = calibrate(scores, classes, weights, np.arange(2000)).decision
    reasons = decision.decide(scores).reasons
    assert 0.045 < np.average(reasons > 0, weights=weights) <= 0.05
    assert min(np.bincount(reasons)) > 20


def test_confidences_are_lower_if_few_series_were_held_out() -> None:
    scores, classes = make_scores(40)
    copied = Scores(*(np.repeat(array, 10, axis=0) for array in scores))
    temperatures = [
        calibrate(copied, classes.repeat(10), np.ones(400), np.arange(400) // images).decision.temperature
        for images in (400, 1, 10)  # of a series; a single series has no variance
    ]
    assert temperatures == sorted(temperatures)
    assert temperatures[2] > 1.1 * temperatures[0]


@pytest.mark.parametrize("right", [0.0, 0.5, 0.7])
def test_confidences_are_low_if_few_held_out_images_are_right(right: float) -> None:
    classes = (np.arange(200) >= 200 * right).astype(np.int64)
    similarity = np.tile([1.0, -1.0, -1.0], (200, 1))  # of two classes, the first one for all images
    scores = Scores(similarity, np.ones(200), np.zeros((200, 3), np.int64))
    decision = calibrate(scores, classes, np.ones(200), np.arange(200)).decision
    assert decision.probabilities(scores)[0, 0] == pytest.approx(max(right, 1 / 3), abs=0.01)


def test_images_like_the_unknown_source_are_rejected() -> None:
    unknown = make_source(*make_images(3, 30, seed=3, offset=20), classes=None)
    trained = train([make_source(*make_images(8, 30)), unknown])
    assert trained.labels == tuple(f"label {number:03}" for number in range(8))
    _, _, others = make_images(3, 20, seed=4, offset=20)
    scores = trained.scorer.scores(others, 8)
    assert (scores.similarity[:, -1] > scores.similarity[:, :-1].max(axis=1)).all()


@pytest.mark.parametrize("cut", [7, 100])
def test_partitions_do_not_change_a_bit(cut: int) -> None:
    images = make_images(6, 40)
    assert digest(train([make_source(*images, cut=cut, most=16)])) == digest(train([make_source(*images, most=16)]))


def test_the_order_of_images_does_not_change_a_bit() -> None:
    paths, labels, features = make_images(6, 40)
    order = np.random.default_rng(5).permutation(len(paths))
    shuffled = make_source([paths[row] for row in order], [labels[row] for row in order], features[order], cut=31)
    assert digest(train([shuffled])) == digest(train([make_source(paths, labels, features)]))


PROGRAM = """
from tests.unit.recogniser.test_training import *
images = make_images(10, 60, crops=2, dimension=1280)
trained = train([make_source(*images), make_source(*make_images(2, 40, crops=2, seed=7, offset=30, dimension=1280),
    weight=3), make_source(*make_images(2, 30, crops=2, seed=8, offset=40, dimension=1280), classes=None)])
scores = trained.scorer.scores(images[2], len(trained.labels))
decided = trained.calibration.decision.decide(scores)
print(digest(trained), hashlib.sha256(b"".join(map(bytes, [*scores, *decided]))).hexdigest())
rows = images[2].reshape(-1, 1280).astype(float)
print(hashlib.sha256(bytes(rows @ rows.T) + bytes(np.exp(rows))).hexdigest())
"""


@pytest.mark.skipif(not usable_kernels(), reason="not an x86-64 CPU with AVX2 on Linux")
def test_every_cpu_gives_the_same_bits() -> None:
    answers = []
    for kernel in usable_kernels():
        environment = {"OPENBLAS_CORETYPE": kernel, "PYTHONPATH": str(Path(__file__).parents[3])}
        if kernel != "SkylakeX":
            environment["NPY_DISABLE_CPU_FEATURES"] = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.splitlines())
    exact, plain = zip(*answers, strict=True)
    assert len(set(exact)) == 1
    if "SkylakeX" in usable_kernels():
        assert len(set(plain)) > 1  # the kernels were indeed different


def test_weights_and_classes_of_sources() -> None:
    first = make_source(
        *make_images(4, 30), classes={f"label {n:03}": "even" if n % 2 == 0 else "odd" for n in range(4)}
    )
    second = make_source(
        *make_images(2, 10, seed=1, offset=4), weight=5, classes=dict.fromkeys(["label 004", "label 005"], "odd")
    )
    trained = train([first, second])
    assert trained.labels == ("even", "odd")
    assert trained.counts == {"even": 60, "odd": 80}
    statistics = group_statistics(
        [first, second], [each.fit + each.held_out for each in (first, second)], ("even", "odd")
    )
    assert [(each.label, each.rows) for each in statistics.groups][-2:] == [("label 004", 50), ("label 005", 50)]


def test_the_sources_of_the_largest_weight_set_temperature_and_thresholds() -> None:
    studio, photos = make_images(4, 60), make_images(4, 40, seed=1, offset=4)
    held_out = {images[0][0]: sum(map(is_held_out, images[0])) for images in (studio, photos)}
    counts = [
        train([make_source(*studio, weight=weight), make_source(*photos, weight=other)]).calibration.images
        for weight, other in ((1, 1), (1, 5), (5, 1))
    ]
    assert counts == [sum(held_out.values()), held_out[photos[0][0]], held_out[studio[0][0]]]


def test_one_class_is_refused() -> None:
    with pytest.raises(DatasetError, match="1 class in the sources: not allowed"):
        train([make_source(*make_images(1, 30))])


def test_a_class_with_one_image_is_trained() -> None:
    paths, labels, features = make_images(4, 30)
    single = make_images(1, 1, offset=7)
    source = make_source(paths + single[0], labels + single[1], np.concatenate([features, single[2]]))
    trained = train([source])
    assert trained.counts["label 007"] == 1
    assert accuracy(trained, single[1], single[2]) == 1.0


@pytest.mark.parametrize("held_out", [0, 1, 4, 5])
def test_classes_of_one_image_each_are_trained_and_nothing_is_rejected(held_out: int) -> None:
    paths, labels, features = make_images(5, 1)
    for row, path in enumerate(paths):
        held = row < held_out
        paths[row] = next(name for n in range(99) if is_held_out(name := f"{path}.{n}x") == held)
    trained = train([make_source(paths, labels, features)])
    assert trained.calibration.images == 0
    assert accuracy(trained, labels, features) == 1.0


def test_equal_images_are_refused() -> None:
    paths, labels, features = make_images(3, 20)
    with pytest.raises(DatasetError, match="no feature varies"):
        train([make_source(paths, labels, np.ones_like(features))])
    features[20:40] = features[40:] = features[:20]
    with pytest.raises(DatasetError, match="nothing distinguishes the labels"):
        train([make_source(paths, labels, features)])


def test_images_that_differ_only_from_held_out_ones_are_trained_without_a_calibration() -> None:
    paths, labels, features = make_images(3, 20)
    features[[not is_held_out(path) for path in paths]] = 1
    assert train([make_source(paths, labels, features)]).calibration.images == 0


def test_sources_are_stored_with_the_recogniser(tmp_path: Path) -> None:
    sources = [make_source(*make_images(4, 20)), make_source(*make_images(2, 10, offset=9), classes=None, weight=2)]
    trained = train(sources)
    origins = [
        {"address": "/photos", "digest": "00" * 32, "images": 80, "rejects": 1},
        {"address": "/others", "digest": "11" * 32, "images": 20, "rejects": 0},
    ]
    number, _, path = trained.representatives[0]
    stored = stored_recogniser(trained, sources, origins, NETWORK, {picture_key(number, path): b"picture"})
    write_recogniser(Folder.at(str(tmp_path)), stored)
    read = read_recogniser(Folder.at(str(tmp_path)), training=True)
    assert digest(train(stored_sources(read))) == digest(trained)
    recogniser = Recogniser.from_stored(read)
    assert recogniser.thumbnails[recogniser.neighbours[0].key] == b"picture"
    assert [record["images"] for record in read.sources] == [80, 20]
    broken = read.training["0.sample"].copy()
    broken[-1] ^= 1
    read.training["0.fit"] = broken  # type: ignore[index]
    with pytest.raises(ModelError, match="corrupt training data"):
        stored_sources(read)


def test_a_left_out_label_is_rejected_or_placed_in_its_class() -> None:
    paths, labels, features = make_images(8, 30)
    features[210:] = features[180:210]  # label 7 looks like label 6 …
    classes = {label: label for label in labels} | {"label 006": "twin", "label 007": "twin"}
    source = make_source(paths, labels, features, classes=classes)
    trained = train([source])
    statistics = group_statistics([source], [source.fit + source.held_out], trained.labels)
    decision = trained.calibration.decision
    numbers = choose_labels(statistics)
    assert numbers == list(range(8))
    results = [
        leave_out(statistics, [source], number, len(trained.labels), decision, "prototypes") for number in numbers
    ]
    assert [each.siblings for each in results] == [0] * 6 + [1, 1]
    assert all(each.images == 30 for each in results)
    assert sum(each.rejected for each in results[:6]) > 0.9 * 180
    assert all(each.placed == 0 for each in results[:6])
    assert all(each.placed > 20 for each in results[6:])  # … and is found as its twin


def test_two_labels_cannot_be_left_out() -> None:
    source = make_source(*make_images(2, 20))
    assert choose_labels(group_statistics([source], [source.fit], ("label 000", "label 001"))) == []


# -- sample and held-out images


def test_the_sample_has_the_smallest_digests_of_each_label() -> None:
    paths, labels, features = make_images(3, 50)
    sample = Sample.choose(paths, labels, features, 5)
    assert len(sample) == 15
    for label in set(labels):
        smallest = sorted(
            (hashlib.sha256(path.encode()).digest(), path)
            for path, own in zip(paths, labels, strict=True)
            if own == label
        )
        assert [path for path, own in zip(sample.paths, sample.labels, strict=True) if own == label] == [
            path for _, path in smallest[:5]
        ]
    for path, row in zip(sample.paths, sample.features, strict=True):
        assert np.array_equal(row, features[paths.index(path)])


def test_a_sample_is_read_as_it_was_written() -> None:
    sample = Sample.choose(*make_images(3, 5), 4)
    assert Sample.from_bytes(sample.to_bytes()).to_bytes() == sample.to_bytes()
    for data in (b"", sample.to_bytes()[:-1], Sample((), ("a",), sample.features).to_bytes()):
        with pytest.raises(ValueError, match="not a sample"):
            Sample.from_bytes(data)


def test_the_sample_is_bounded() -> None:
    assert rows_per_label(131, 5120) == 400
    assert rows_per_label(10, 5120) == 512
    assert rows_per_label(10**6, 5120) == 1


@pytest.mark.parametrize(
    ("images", "groups", "expected"),
    [(1, 2, 8), (40, 160, 8), (100, 31, 13), (512, 131, 62), (512, 8, 64), (9, 10**4, 1)],
)
def test_prototypes_follow_the_images_of_a_group(images: int, groups: int, expected: int) -> None:
    assert prototypes_of_group(images, groups) == expected


def test_an_arc_of_each_turn_is_held_out() -> None:
    for axis in ("", "r_", "r2_"):
        frames = [frame for frame in range(330) if is_held_out(f"Apple/{axis}{frame}_100.jpg")]
        assert len(frames) == 66
        assert frames == list(range(frames[0], frames[0] + 66))
    assert is_held_out("Avocado ripe/r_100.jpg") == is_held_out("Avocado ripe/r_1_100.jpg")  # frame 0


def test_numbered_photographs_are_held_out_in_series() -> None:
    held = [is_held_out(f"Apple/Granny-Smith_{number:03}.jpg") for number in range(2000)]
    assert all(len(set(held[start : start + 20])) == 1 for start in range(0, 2000, 20))
    assert 0.1 < np.mean(held) < 0.3


def test_a_fifth_of_other_images_is_held_out() -> None:
    held = [is_held_out(path) for path in make_images(20, 100)[0]]
    assert 0.17 < np.mean(held) < 0.23
