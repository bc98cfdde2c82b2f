"""Files that webdataset, datasets and pandas write themselves: the paths, labels and bytes that were given to them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fruits.errors import DatasetError
from fruits.images.sources.entries import Label
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import image_bytes

NAMES = ["Apple", "Äpfel, rot", "007"]


def encoded(number: int) -> bytes:
    """Return a JPEG that differs from those of other numbers."""
    file = BytesIO()
    Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(file, "JPEG")
    return file.getvalue()


IMAGES = [encoded(number) for number in range(6)]


def read(address: object, **options: Any) -> list[tuple[str, Label, bytes]]:
    """Return the path, the label and the content of each image at an address."""
    source = open_source(str(address), SourceOptions(**options))
    entries = list(Listing(source))
    contents = map(image_bytes, source.read(entries))
    return [(entry.path, entry.label, content) for entry, content in zip(entries, contents, strict=True)]


# -- webdataset


@pytest.mark.parametrize(
    ("field", "values", "labels"),
    [
        ("cls", range(6), ["0", "1", "2", "3", "4", "5"]),
        ("json", [{"label": NAMES[number % 3], "width": 8} for number in range(6)], NAMES * 2),
        ("json", [{"label": NAMES[: number % 3]} for number in range(6)], [(), *[("Apple",), ("Apple", NAMES[1])]] * 2),
        ("txt", NAMES * 2, NAMES * 2),
        ("caption.txt", ["a long caption"] * 6, ["a"] * 6),
        ("npy", [np.zeros(3)] * 6, ["a"] * 6),
    ],
)
def test_shards_of_webdataset(tmp_path: Path, field: str, values: Any, labels: list[Label]) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/%03d.tar", maxcount=4, verbose=0) as writer:
        for number, value in enumerate(values):
            writer.write({"__key__": f"a/{number}", "jpg": IMAGES[number], field: value})
    expected = [(f"a/{number}.jpg", label, IMAGES[number]) for number, label in enumerate(labels)]
    assert read(tmp_path / "{000..001}.tar") == expected


def test_two_images_of_a_sample_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        sample = {"left.jpg": IMAGES[0], "right.png": Image.new("RGB", (8, 8)), "left.cls": 1, "cls": 2}
        writer.write({"__key__": "1", **sample})
    (left, right) = read(tmp_path / "x.tar")
    assert left == ("1.left.jpg", "1", IMAGES[0])
    assert right[:2] == ("1.right.png", "2")
    assert Image.open(BytesIO(right[2])).size == (8, 8)


# -- datasets


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the library, without its cache and without requests."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    return library


def test_named_classes_and_files_of_datasets(tmp_path: Path, datasets: Any) -> None:
    from datasets.table import embed_table_storage

    (tmp_path / "files").mkdir()
    paths = [tmp_path / "files" / f"{number}.jpg" for number in range(6)]
    for path, data in zip(paths, IMAGES, strict=True):
        path.write_bytes(data)
    classes = datasets.ClassLabel(names=NAMES)
    features = {"image": datasets.Image(), "label": classes, "labels": datasets.List(classes)}
    columns = {
        "image": [str(path) for path in paths],
        "label": [0, 1, 2, 0, 1, None],
        "labels": [[0], [1, 2], [], [0], [1], [2]],
    }
    labels = [*NAMES, *NAMES[:2], None]
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(tmp_path / "paths.parquet")
    with pytest.raises(
        DatasetError, match=r"contains no image: all values are null.*`path_column`, such as image\.path"
    ):
        read(tmp_path / "paths.parquet", image_column="image.bytes")
    found = read(tmp_path / "paths.parquet", path_column="image.path", label_column="label")
    assert found == list(zip(map(str, paths), labels, IMAGES, strict=True))

    # As for the hub: the images are embedded.
    table.with_format("arrow").map(embed_table_storage, batched=True).to_parquet(tmp_path / "x.parquet", batch_size=2)
    found = read(tmp_path / "x.parquet", image_column="image.bytes", label_column="label")
    assert found == list(zip([path.name for path in paths], labels, IMAGES, strict=True))
    lists = read(tmp_path / "x.parquet", image_column="image.bytes", label_column="labels")
    assert [label for _, label, _ in lists] == [("Apple",), (NAMES[1], "007"), (), ("Apple",), (NAMES[1],), ("007",)]


def test_images_without_files_of_datasets(tmp_path: Path, datasets: Any) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    columns = {"image": [{"bytes": data, "path": None} for data in IMAGES[:4]], "label": ["x", None, "", "y"]}
    table = datasets.Dataset.from_dict(columns, features=features)
    for shard in range(2):
        table.shard(2, shard).to_parquet(tmp_path / f"train-{shard:05d}-of-00002.parquet")
    found = read(tmp_path / "train-*.parquet", image_column="image.bytes", label_column="label")
    names = [f"train-{shard:05d}-of-00002.parquet/{row:09d}" for shard in range(2) for row in range(2)]
    assert found == list(zip(names, ["x", None, None, "y"], IMAGES[:4], strict=True))


# -- pandas


def test_images_in_a_table_of_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": [f"{number}.jpg" for number in range(6)], "content": IMAGES, "kind": NAMES * 2})
    frame = frame.astype({"kind": "category"})[frame.index != 3]  # with a column for the index
    frame.to_parquet(tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", image_column="content", path_column="file", label_column="kind")
    assert found == [(f"{n}.jpg", NAMES[n % 3], IMAGES[n]) for n in range(6) if n != 3]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_list_of_images_of_pandas(tmp_path: Path, kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    names = ["a/1.jpg", 'b/ü "2", x.jpg', "c/3\n4.jpg"]
    for name, data in zip(names, IMAGES, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    frame = pandas.DataFrame({"uri": names, "class": pandas.array([7, None, 11], "Int64"), "other": [1.5, None, 2]})
    match kind:
        case "parquet":
            frame.to_parquet(tmp_path / "m.parquet")
        case "csv":
            frame.to_csv(tmp_path / "m.csv", index=False)
        case "jsonl":
            frame.to_json(tmp_path / "m.jsonl", orient="records", lines=True)
    found = read(tmp_path / f"m.{kind}", path_column="uri", label_column="class")
    assert found == list(zip(names, ["7", None, "11"], IMAGES, strict=False))
