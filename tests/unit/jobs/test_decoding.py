"""Settings of the decoder in whole jobs: ``decode`` and ``crops``. The network is a fast stand-in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.local import LocalExecutor
from fruits.errors import ModelError, OutputError, SettingsError
from fruits.images.decode import Decoding, decode_crops
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.commits import last_commit
from fruits.storage.folder import Folder
from fruits.storage.parquet import read_table, vectors
from tests.unit.jobs.test_pipeline import MeanColours

COUNT = 8


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "compile_network", lambda backbone, engine, weights: MeanColours(backbone, engine))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write large JPEGs, of which reduced decoding gives other pixels."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        noise = Image.fromarray(rng.integers(0, 256, (90, 100, 3), np.uint8))
        noise.resize((1_000, 900)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def job(images: Path, tmp_path: Path) -> Job:
    return Job(images=str(images), out=str(tmp_path / "out"), components=3, partition_size=3)


def features(out: str, column: str = "features") -> np.ndarray:
    parts = sorted(Path(out, "features").iterdir())
    return np.concatenate([vectors(read_table(part.read_bytes())[column]) for part in parts])


def expected(images: Path, decoding: Decoding) -> np.ndarray:
    """Return the features of all images and their crops, shape (images, crops, features)."""
    pixels = np.stack([decode_crops(path.read_bytes(), 224, decoding) for path in sorted(images.iterdir())])
    flat = MeanColours().load()(pixels.reshape(-1, *pixels.shape[2:]))
    return flat.reshape(COUNT, decoding.crops, -1)


def execute(command: str, job: Job, **changes: object) -> None:
    getattr(pipeline, command)(dataclasses.replace(job, **changes), LocalExecutor())  # type: ignore[arg-type]


def identity(out: str) -> dict[str, object]:
    commit = last_commit(Folder.at(out))
    assert commit is not None
    return commit.job


@pytest.mark.parametrize(("given", "used"), [(None, "reduced"), ("reduced", "reduced"), ("full", "full")])
def test_features_model_and_identity_follow_the_setting(job: Job, images: Path, given: str, used: str) -> None:
    execute("fit", job, decode=given)
    assert np.array_equal(features(job.out), expected(images, Decoding(used))[:, 0])  # type: ignore[arg-type]
    assert ScaledPCA.load(job.out).network["decode"] == used
    assert identity(job.out)["features"]["decode"] == used


def test_modes_give_other_features(job: Job, images: Path) -> None:
    assert not np.array_equal(expected(images, Decoding("reduced")), expected(images, Decoding("full")))


@pytest.mark.parametrize("decode", ["reduced", "full"])
def test_transform_decodes_as_the_model_was_fitted(job: Job, tmp_path: Path, decode: str) -> None:
    execute("run", job, decode=decode)
    execute("transform", job, model=job.out, out=str(tmp_path / "rows"))
    rows = [
        np.concatenate([vectors(read_table(part.read_bytes())["features"]) for part in sorted(folder.iterdir())])
        for folder in (Path(job.out, "rows"), tmp_path / "rows" / "rows")
    ]
    assert np.array_equal(*rows)
    assert identity(str(tmp_path / "rows"))["features"]["decode"] == decode


def test_a_model_without_the_setting_was_fitted_at_full_size(job: Job, images: Path, tmp_path: Path) -> None:
    execute("fit", job, decode="full")
    model = ScaledPCA.load(job.out)
    network = {key: value for key, value in model.network.items() if key != "decode"}
    dataclasses.replace(model, network=network).save(str(tmp_path / "earlier"))
    execute("transform", job, model=str(tmp_path / "earlier"), out=str(tmp_path / "rows"))
    assert identity(str(tmp_path / "rows"))["features"]["decode"] == "full"


@pytest.mark.parametrize(
    ("fitted", "given", "says"),
    [
        ("full", "reduced", "was fitted with `decode` full, which contradicts `decode` reduced. Leave `decode` out."),
        ("half", None, "was fitted with `decode` half, which this version does not know. Known: reduced, full."),
    ],
)
def test_contradicting_model_is_refused(job: Job, tmp_path: Path, fitted: str, given: str | None, says: str) -> None:
    execute("fit", job)
    model = ScaledPCA.load(job.out)
    dataclasses.replace(model, network={**model.network, "decode": fitted}).save(str(tmp_path / "model"))
    with pytest.raises(ModelError) as raised:
        execute("transform", job, model=str(tmp_path / "model"), out=str(tmp_path / "rows"), decode=given)
    assert str(raised.value).endswith(says)
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [({"decode": "full"}, "decode: reduced stored, full requested"), ({"crops": 2}, "crops: 1 stored, 2 requested")],
)
def test_other_settings_are_another_job(job: Job, change: dict[str, object], says: str) -> None:
    execute("fit", job)
    with pytest.raises(OutputError, match=says):
        execute("fit", job, **change)


def test_two_crops_store_the_features_of_the_centre_and_change_nothing_else(
    job: Job, images: Path, tmp_path: Path
) -> None:
    execute("run", job)
    execute("run", job, crops=2, out=str(tmp_path / "two"))
    whole, centre = expected(images, Decoding(crops=2)).swapaxes(0, 1)
    assert np.array_equal(features(str(tmp_path / "two")), whole)
    assert np.array_equal(features(str(tmp_path / "two"), "crop_features"), centre)
    assert not np.array_equal(whole, centre)
    assert ScaledPCA.load(job.out).digest() == ScaledPCA.load(str(tmp_path / "two")).digest()
    rows = [sorted((Path(out) / "rows").iterdir()) for out in (job.out, tmp_path / "two")]
    assert [part.read_bytes() for part in rows[0]] == [part.read_bytes() for part in rows[1]]


def test_one_crop_stores_no_other_column(job: Job) -> None:
    execute("fit", job)
    part = next(Path(job.out, "features").iterdir())
    assert read_table(part.read_bytes()).column_names == ["path", "label", "features"]
    assert json.loads(next(Path(job.out, "model").glob("*.json")).read_bytes())["network"]["decode"] == "reduced"


def test_transform_refuses_two_crops(job: Job, tmp_path: Path) -> None:
    execute("fit", job)
    with pytest.raises(SettingsError, match="`crops` = 2: not allowed for transform, which stores no features"):
        execute("transform", job, model=job.out, out=str(tmp_path / "rows"), crops=2)
