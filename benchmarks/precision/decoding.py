"""Compare scales of decoding: ``python -m benchmarks.precision.decoding IMAGES TEST [--megapixels SIZES]``.

The photos of two folders are enlarged to the size of a camera's, with noise like a sensor's. Every *margin* (least side
of a decoded JPEG, in sides of the network's input) decodes each of them in turn with full decoding; the product's is
:data:`fruits.images.decode.MARGIN`. Time is CPU time of one thread. Results: docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.inputs.images import Originals
from benchmarks.measure.results import write_results
from benchmarks.precision.measure import errors, nearest_labels
from fruits.images.containers import parse
from fruits.images.decode import MARGIN, Decoding, decode_crops
from fruits.images.jpeg import load_reduced
from fruits.model.moments import Moments
from fruits.network.backbones import backbone
from fruits.network.featurizer import Featurizer, compile_network
from fruits.recogniser.training.fitting import Source, fit, group_statistics
from fruits.recogniser.training.sample import Sample

Pixels = npt.NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]

NETWORK = "MobileNetV2"
SIZE = backbone(NETWORK).size
MARGINS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Result:
    """Measurements of one way to decode.

    Attributes
    ----------
    mean_error, max_error : float
        Of ``|features - full decoding's| / |full decoding's|``, over all images.
    accuracy : float
        Percentage of test images whose nearest neighbour has the same label.
    same : float
        Percentage of test images whose nearest neighbour has the same label as with full decoding.
    recogniser : float
        Percentage of test images whose most probable label is right, by a recogniser of the training images.
    milliseconds : float
        CPU time for decoding and resizing an image: median.
    speed : float
        CPU time of full decoding divided by that of this way: median over the images.
    """

    megapixels: float
    form: str
    mean_error: float
    max_error: float
    accuracy: float
    same: float
    recogniser: float
    milliseconds: float
    speed: float


def with_margin(margin: int) -> Decoder:
    """Return a decoder of RGB JPEGs that keeps both sides at least `margin` times as long as those of the result."""
    if margin == MARGIN:
        return lambda data: decode_crops(data, SIZE)

    def decode(data: bytes) -> Pixels:
        reduced = load_reduced(parse(data), margin * SIZE)
        if reduced is None:
            return decode_crops(data, SIZE, Decoding("full"))
        image, (width, height) = reduced
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (0, 0, width, height)))[np.newaxis]

    return decode


FORMS: dict[str, Decoder] = {
    "full": lambda data: decode_crops(data, SIZE, Decoding("full")),
    **{f"margin {margin}": with_margin(margin) for margin in MARGINS},
}


def measure(megapixels: float, gallery: Originals, queries: Originals, featurizer: Featurizer) -> list[Result]:
    """Measure every form on enlarged images; the first is full decoding."""
    files = [Path(photos.folder, name) for photos in (gallery, queries) for name in photos.names]
    labels = np.array([file.parent.name for file in files])
    features: dict[str, list[npt.NDArray[np.float32]]] = {form: [] for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    names = list(FORMS)
    for number, file in enumerate(files):
        data = file.read_bytes()
        for turn in range(len(names)):
            form = names[(turn + number) % len(names)]
            start = time.thread_time()
            pixels = FORMS[form](data)
            seconds[form].append(time.thread_time() - start)
            features[form].append(featurizer(pixels)[0])
    fitted = len(gallery.names)
    stacked = {form: np.stack(rows) for form, rows in features.items()}
    found = {form: nearest_labels(rows[:fitted], labels[:fitted], rows[fitted:]) for form, rows in stacked.items()}
    results = []
    for form, rows in stacked.items():
        distances = errors(rows, stacked["full"])
        ratios = [full / own for full, own in zip(seconds["full"], seconds[form], strict=True)]
        results.append(
            Result(
                megapixels=megapixels,
                form=form,
                mean_error=float(distances.mean()),
                max_error=float(distances.max()),
                accuracy=100 * float((found[form] == labels[fitted:]).mean()),
                same=100 * float((found[form] == found["full"]).mean()),
                recogniser=100
                * float((recognised(rows[:fitted], labels[:fitted], rows[fitted:]) == labels[fitted:]).mean()),
                milliseconds=1000 * statistics.median(seconds[form]),
                speed=statistics.median(ratios),
            )
        )
    return results


def recognised(
    gallery: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], queries: npt.NDArray[np.float32]
) -> npt.NDArray[np.str_]:
    """Return the most probable label of each query, by a recogniser that is trained on a gallery."""
    names = sorted(set(labels.tolist()))
    moments = Moments.from_features(gallery, labels.tolist())
    paths = [f"{label}/{number}.jpg" for number, label in enumerate(labels)]
    sample = Sample.choose(paths, labels.tolist(), gallery[:, np.newaxis], len(gallery))
    source = Source(moments, Moments.from_features(gallery[:0]), sample, 1, {name: name for name in names})
    trained = fit(group_statistics([source], [moments], names), [sample], [np.ones(len(sample), bool)])
    scores = trained.scorer.scores(queries[:, np.newaxis], len(names)).similarity[:, : len(names)]
    return np.array([names[index] for index in scores.argmax(axis=1).tolist()])


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    head = "| MP | form | error, mean | error, max | 1-NN | same label as full | recogniser | ms/image | speed |"
    lines = [head, "| ---: | --- |" + " ---: |" * 7]
    for one in results:
        lines.append(
            f"| {one.megapixels:g} | {one.form} | {one.mean_error:.2%} | {one.max_error:.2%} | {one.accuracy:.1f} % | "
            f"{one.same:.1f} % | {one.recogniser:.1f} % | {one.milliseconds:.1f} | {one.speed:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, and write it with the raw figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision.decoding",
        description="Compare scales of decoding: error of the features, accuracy and speed of each.",
    )
    parser.add_argument("images", metavar="IMAGES", help="folder <label>/<file>.jpg")
    parser.add_argument("test", metavar="TEST", help="another such folder, classified by nearest neighbours in IMAGES")
    parser.add_argument("--megapixels", metavar="SIZES", default="3,12", help="sizes of the enlarged photos")
    parser.add_argument("--count", type=int, default=400, help="photos of IMAGES; of TEST, half as many; default 400")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="folder of decoding.md and decoding.json")
    arguments = parser.parse_args()
    cache = Path(arguments.out, "cache").absolute()
    featurizer = compile_network(NETWORK).load()
    results: list[Result] = []
    for megapixels in map(float, arguments.megapixels.split(",")):
        gallery, queries = (
            Originals.below(folder, count).enlarged(megapixels, cache)
            for folder, count in ((arguments.images, arguments.count), (arguments.test, arguments.count // 2))
        )
        results += measure(megapixels, gallery, queries, featurizer)
    write_results(arguments.out, "decoding", table(results), {"results": results})


if __name__ == "__main__":
    main()
