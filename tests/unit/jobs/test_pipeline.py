"""Whole jobs on the local executor: stages, resuming, refusals and corruption. The network is a fast stand-in."""

import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from backends.local import LocalExecutor
from fruits.cli import output_commands
from fruits.errors import (
    DamageError,
    DatasetError,
    ModelError,
    OutputError,
    RejectsError,
    SettingsError,
    TaskError,
    WeightsError,
)
from fruits.images.sources.kinds import open_source
from fruits.jobs import completion, identity, output, pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from fruits.jobs.tasks import featurize as featurizing
from fruits.jobs.tasks.survey import FinishedPartition, PartitionBatch, survey
from fruits.model.fingerprint import numeric_fingerprint
from fruits.model.rows import decode_rows
from fruits.plan.partitions import Partition
from fruits.progress import heartbeat
from fruits.progress.console import SafeConsole
from fruits.progress.json_log import JsonLog
from fruits.progress.lines import Lines
from fruits.progress.reporter import Silent
from fruits.storage.commits import OwnedFolder, last_commit
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table
from tests.outputs import digest, is_complete, owner, stored

FEATURES = 40


@dataclasses.dataclass(frozen=True)
class MeanColours:
    """A network whose features are a fixed projection of the image, reduced to 8 x 8 pixels."""

    backbone: str = "MobileNetV2"
    engine: str = "openvino"
    package: str = "stand-in-1"
    weights_digest: str = "none"
    features: int = FEATURES
    digest: str = "mean colours"

    def load(self):
        projection = np.random.default_rng(0).standard_normal((8 * 8 * 3, FEATURES)).astype(np.float32)
        features = np.empty((0, FEATURES), np.float32)
        return lambda pixels: np.array([self.of(picture, projection) for picture in pixels] or features)

    @staticmethod
    def of(picture, projection):
        return np.maximum(picture[::28, ::28].reshape(-1) / np.float32(255) @ projection, 0)


@pytest.fixture(autouse=True)
def network(monkeypatch, solver_in_this_process):
    monkeypatch.setattr(pipeline, "compile_network", lambda backbone, engine, weights: MeanColours(backbone, engine))


@pytest.fixture
def images(tmp_path):
    """Write 30 images of 3 labels, and 2 unusable ones."""
    rng = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / "images" / f"label {number % 3}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    (tmp_path / "images" / "label 1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (tmp_path / "images" / "label 2" / "zero.jpg").touch()
    (tmp_path / "images" / "readme.txt").write_text("words")
    return tmp_path / "images"


@pytest.fixture
def job(images, tmp_path):
    return Job(images=str(images), out=str(tmp_path / "out"), components=5, partition_size=4)


class Counting(LocalExecutor):
    """Counts the items of each task, and can interrupt the job after some of them."""

    def __init__(self, stop_after=None):
        super().__init__(workers=2)
        self.given = {}
        self.stop_after = stop_after

    def map(self, task, items, *, shared=None, retries=0, progress=None):
        self.given[task.__name__] = self.given.get(task.__name__, 0) + len(items)
        if self.stop_after is not None:
            name, count = self.stop_after
            if task.__name__ == name:
                super().map(task, items[:count], shared=shared, retries=0, progress=progress)
                raise KeyboardInterrupt
        return super().map(task, items, shared=shared, retries=0, progress=progress)


def test_every_image_is_a_row_or_a_reject(job, images, tmp_path):
    report = pipeline.run(job, LocalExecutor())
    assert (report.images, report.rows, report.ignored) == (32, 30, 1)
    assert sum(report.rejects.values()) == 2
    out = Folder.at(job.out)
    names = [part_name(index, "parquet", owner(job.out)) for index in range(8)]
    paths = [path for name in names for path in (out / "rows").read_table(name)["path"].to_pylist()]
    rejects = [reject for name in names for reject in (out / "rejects").read_table(name).to_pylist()]
    listed = sorted(str(path.relative_to(images)) for path in images.rglob("*") if path.suffix in (".png", ".jpg"))
    assert sorted(paths + [reject["path"] for reject in rejects]) == listed
    assert {reject["path"]: reject["reason"] for reject in rejects}["label 2/zero.jpg"] == "empty"
    assert all(reject["label"] in reject["path"] and reject["detail"] for reject in rejects)


@dataclasses.dataclass(frozen=True)
class Overflowing(MeanColours):
    """A network that returns a non-finite number for images with a white first pixel."""

    value: float = float("nan")

    def load(self):
        finite = super().load()

        def featurize(pixels):
            features = finite(pixels)
            features[pixels[:, 0, 0].min(axis=1) == 255, 3] = self.value
            return features

        return featurize


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**19])
@pytest.mark.parametrize("command", ["run", "transform"])
def test_images_with_non_finite_features_are_rejects(command, value, job, images, tmp_path, monkeypatch):
    if command == "transform":
        pipeline.fit(dataclasses.replace(job, out=str(tmp_path / "model")), LocalExecutor())
        job = dataclasses.replace(job, model=str(tmp_path / "model"))
    for name in ("00 white.png", "zz white.png"):
        Image.new("RGB", (20, 20), "white").save(images / "label 1" / name)
    monkeypatch.setattr(pipeline, "compile_network", lambda *_: Overflowing(value=value))
    report = getattr(pipeline, command)(dataclasses.replace(job, max_reject_fraction=0.2), LocalExecutor())
    assert (report.images, report.rows, report.rejects["non-finite"]) == (34, 30, 2)
    out = tmp_path / "out"
    rejects = [row for path in sorted((out / "rejects").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [(row["path"], row["detail"]) for row in rejects if row["reason"] == "non-finite"] == [
        (f"label 1/{name} white.png", "its features contain NaN, infinity, or a number of 2^19 or more")
        for name in ("00", "zz")
    ]
    assert [row["path"] for row in rejects] == sorted(row["path"] for row in rejects)
    rows = [row for path in (out / "rows").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert all(np.isfinite(row[name]).all() for row in rows for name in ("features", "scaled_features", "pca_features"))


def test_rows_are_the_features_transformed_by_the_model(job):
    report = pipeline.run(job, LocalExecutor())
    out = Folder.at(job.out)
    from fruits.model.scaled_pca import ScaledPCA

    model = ScaledPCA.load(job.out)
    assert report.components == 5
    assert model.rows == 30
    for name in (out / "rows").names():
        rows = decode_rows((out / "rows").read(name), name)
        scaled, scores = model.transform(rows["features"])
        np.testing.assert_array_equal(rows["scaled_features"], scaled.astype(np.float32))
        np.testing.assert_array_equal(rows["pca_features"], scores.astype(np.float32))


def test_fit_then_transform_gives_the_rows_of_run(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    fitted = dataclasses.replace(job, out=str(tmp_path / "fitted"))
    report = pipeline.fit(fitted, LocalExecutor())
    assert not (tmp_path / "fitted" / "rows").exists()
    assert report.rows == 30
    applied = dataclasses.replace(job, out=str(tmp_path / "applied"), model=fitted.out, format="csv")
    pipeline.transform(applied, LocalExecutor())
    assert not (tmp_path / "applied" / "features").exists()
    assert compare(job.out, applied.out).identical


@pytest.mark.parametrize(
    "stop_after", [("featurize", 0), ("featurize", 3), ("merge", 0), ("merge", 1), ("write_rows", 0), ("write_rows", 5)]
)
def test_a_resumed_job_only_writes_missing_parts(job, tmp_path, stop_after):
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    pipeline.run(whole, LocalExecutor())
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(stop_after))
    assert not is_complete(tmp_path / "out")
    second = Counting()
    report = pipeline.run(job, second)
    name, count = stop_after
    total = {"featurize": 8, "merge": 1, "write_rows": 8}
    order = list(total)
    for stage in order:
        done = total[stage] if order.index(stage) < order.index(name) else count if stage == name else 0
        assert second.given.get(stage, 0) == total[stage] - done
    assert report.rows == 30
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_keep_plan_resumes_without_listing(job, tmp_path, monkeypatch):
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    pipeline.run(whole, LocalExecutor())
    kept = dataclasses.replace(job, keep_plan=True)
    with pytest.raises(SettingsError, match=r"`keep_plan`: .*out contains no job yet"):
        pipeline.run(kept, LocalExecutor())
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 3)))
    monkeypatch.setattr(output.Listing, "tables", lambda listing: pytest.fail("it was listed"))
    with pytest.raises(OutputError, match=r"`partition_size` = 2: .* stored in partitions of 4"):
        pipeline.run(dataclasses.replace(kept, partition_size=2), LocalExecutor())
    second = Counting()
    report = pipeline.run(kept, second)
    assert second.given["featurize"] == 5
    assert (report.rows, report.ignored) == (30, None)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_sample_and_seed_are_part_of_the_identity_only_if_given(job, tmp_path):
    sampled = dataclasses.replace(job, sample=12, seed=1, out=str(tmp_path / "sampled"))
    report = pipeline.run(sampled, LocalExecutor())
    assert (report.images, report.labels) == (12, 3)
    for changes, text in (
        ({"seed": 2}, "seed: 1 stored, 2 requested"),
        ({"sample": None, "seed": 0}, "sample: 12 stored"),
    ):
        with pytest.raises(OutputError, match=text):
            pipeline.run(dataclasses.replace(sampled, **changes), LocalExecutor())
    whole = pipeline.run(job, LocalExecutor())
    assert (whole.labels, whole.skipped, whole.ignored) == (3, {"not-image": 1}, 1)
    identities = [last_commit(Folder.at(str(tmp_path / name))).job for name in ("out", "sampled")]
    new = {"sample", "seed", "include_hidden"}
    assert [new & identity.keys() for identity in identities] == [set(), {"sample", "seed"}]


def test_with_keep_plan_a_removed_image_is_a_reject(job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 3)))
    victim = Path(job.images, list(output.Listing(open_source(job.images)))[-1].path)
    before = pipeline.run(dataclasses.replace(job, out=str(tmp_path / "whole")), LocalExecutor())
    victim.unlink()
    report = pipeline.run(dataclasses.replace(job, keep_plan=True), LocalExecutor())
    assert report.images == before.images
    assert report.rejects.get("unreadable", 0) == before.rejects.get("unreadable", 0) + 1


@pytest.mark.parametrize("size", [None, 0, -1, "4", 2**63])
def test_an_invalid_partition_size_in_the_commit_is_refused(job, tmp_path, size):
    pipeline.run(job, LocalExecutor())
    (*_, last) = sorted((tmp_path / "out" / "commits").iterdir())
    content = json.loads(last.read_bytes())
    content["partition_size"] = size
    last.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="is corrupt"):
        pipeline.run(dataclasses.replace(job, keep_plan=True), LocalExecutor())


@pytest.mark.parametrize("keep_plan", [False, True])
def test_a_corrupt_plan_is_restored_from_the_listing(job, tmp_path, keep_plan):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    stored(tmp_path / "out", "plan/partitions.parquet").write_bytes(b"PAR1")
    job = dataclasses.replace(job, keep_plan=keep_plan)
    if keep_plan:  # nothing is listed
        with pytest.raises(DamageError, match="partitions"):
            pipeline.run(job, LocalExecutor())
    else:
        pipeline.run(job, LocalExecutor())
        assert digest(tmp_path / "out") == before


def test_large_images_have_more_partitions_that_a_restart_keeps_and_no_bit_depends_on_them(job, tmp_path, monkeypatch):
    even = pipeline.run(job, LocalExecutor())
    sizes = [image.size for image in output.Listing(open_source(job.images))]
    bound = max(*sizes, sum(sizes) // 20)
    bounded = dataclasses.replace(job, out=str(tmp_path / "bounded"), partition_size=None)
    with monkeypatch.context() as patch:
        patch.setattr("fruits.plan.partitions.MOST_BYTES", bound)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(bounded, Counting(("featurize", 3)))
    report = pipeline.run(bounded, LocalExecutor())
    assert report.partitions > even.partitions
    assert report.resumed >= 3
    assert compare(job.out, bounded.out).identical


def test_a_finished_job_is_only_verified_and_returns_the_same_report(job):
    first = pipeline.run(job, LocalExecutor())
    second = Counting()
    assert pipeline.run(job, second) == first
    assert set(second.given) == {"survey", "verify_parts"}


def test_a_deleted_rows_part_is_written_again(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    stored(tmp_path / "out", "rows/part-00003.parquet").unlink()
    second = Counting()
    pipeline.run(job, second)
    assert second.given["write_rows"] == 1
    assert "featurize" not in second.given
    assert digest(tmp_path / "out") == before


@pytest.mark.parametrize("command", [pipeline.run, pipeline.fit, pipeline.transform])
def test_slices_in_any_order_give_the_bits_of_one_run(job, tmp_path, command):
    pipeline.run(dataclasses.replace(job, out=str(tmp_path / "model")), LocalExecutor())
    job = dataclasses.replace(job, partition_size=1, model=str(tmp_path / "model"), limit=30)
    command(dataclasses.replace(job, out=str(tmp_path / "whole")), LocalExecutor())
    task = "transform" if command is pipeline.transform else "featurize"
    slices = {}
    for shards in ("3/3", "1/3", "2/3"):
        executor = Counting()
        slices[shards] = command(dataclasses.replace(job, shards=shards), executor)
        assert (slices[shards].shards, slices[shards].partitions_of_job) == (shards, 30)
        assert executor.given[task] == slices[shards].partitions
    assert {shards: report.partitions for shards, report in slices.items()} == {"1/3": 10, "2/3": 10, "3/3": 10}
    assert [slices[shards].partitions_left for shards in ("3/3", "1/3", "2/3")] == [20, 10, 0]
    assert sum(report.rows for report in slices.values()) == 29
    assert not is_complete(tmp_path / "out")
    last = Counting()
    report = command(job, last)
    assert task not in last.given
    assert last.given.get("merge", 0) == (task == "featurize")
    assert (report.rows, report.resumed) == (29, 30)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_the_final_command_completes_missing_slices(job, tmp_path):
    pipeline.run(dataclasses.replace(job, out=str(tmp_path / "whole"), partition_size=2), LocalExecutor())
    job = dataclasses.replace(job, partition_size=2)
    pipeline.run(dataclasses.replace(job, shards="2/2"), LocalExecutor())
    last = Counting()
    assert pipeline.run(job, last).rows == 30
    assert last.given["featurize"] == 8
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_an_empty_slice_does_nothing(job):
    executor = Counting()
    report = pipeline.run(dataclasses.replace(job, shards="1/9"), executor)  # there are eight partitions
    assert (report.partitions, report.images, report.partitions_left) == (0, 0, 8)
    assert executor.given == {}


def test_slices_do_not_fail_on_too_many_rejects(job):
    strict = dataclasses.replace(job, max_reject_fraction=0)
    assert sum(pipeline.run(dataclasses.replace(strict, shards="1/1"), LocalExecutor()).rejects.values()) == 2
    with pytest.raises(RejectsError, match="2 of 32 images"):
        pipeline.run(strict, LocalExecutor())


def test_a_slice_of_another_job_is_refused_even_when_both_start_at_once(job, monkeypatch):
    made = output.write_list

    def then_another_begins(*arguments):
        plan = made(*arguments)
        monkeypatch.setattr(output, "write_list", made)
        pipeline.run(dataclasses.replace(job, shards="1/2"), LocalExecutor())
        return plan

    monkeypatch.setattr(output, "write_list", then_another_begins)
    with pytest.raises(OutputError, match="components: 5 stored, 6 requested"):
        pipeline.run(dataclasses.replace(job, components=6, shards="2/2"), LocalExecutor())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"components": 6}, "components: 5 stored, 6 requested"),
        ({"format": "csv"}, "format: parquet stored, csv requested"),
        ({"limit": 20}, "limit: nothing stored, 20 requested"),
    ],
)
def test_another_job_is_refused_with_both_values(job, tmp_path, change, says):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    other = dataclasses.replace(job, **change)
    with pytest.raises(OutputError, match=says):
        pipeline.run(other, LocalExecutor())
    assert digest(tmp_path / "out") == before
    pipeline.run(dataclasses.replace(other, overwrite=True), LocalExecutor())
    assert digest(tmp_path / "out") != before


def test_changed_images_are_another_job(job, images):
    pipeline.run(job, LocalExecutor())
    (images / "label 0" / "00.png").unlink()
    with pytest.raises(OutputError, match=r"list\.digest.*\n.*list\.images: 32 stored, 31 requested(?s:.*)`update`"):
        pipeline.run(job, LocalExecutor())


def test_images_replaced_at_the_same_size_are_another_job(job, images):
    pipeline.run(job, LocalExecutor())
    os.utime(images / "label 0" / "00.png", (1, 1))
    with pytest.raises(OutputError, match=r"changed images: 1 replaced \(label 0/00\.png\)\n"):
        pipeline.run(job, LocalExecutor())
    (images / "label 2" / "zero.jpg").unlink()
    (images / "label 3.png").write_bytes((images / "label 0" / "03.png").read_bytes())
    words = r"1 replaced \(label 0/00\.png\), 1 added \(label 3\.png\), 1 removed \(label 2/zero\.jpg\)"
    with pytest.raises(OutputError, match=words):
        pipeline.run(job, LocalExecutor())


def test_overwrite_keeps_the_old_job_if_the_new_one_cannot_start(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    with pytest.raises(DatasetError):
        pipeline.run(dataclasses.replace(job, images=str(tmp_path / "missing"), overwrite=True), LocalExecutor())
    assert digest(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused_even_with_overwrite(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.tex"):
            pipeline.run(dataclasses.replace(job, overwrite=overwrite), LocalExecutor())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_folder_without_commits_needs_overwrite(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "commits")
    with pytest.raises(OutputError, match=r"parts of a job, but its commits are missing\. Use `overwrite`"):
        pipeline.run(job, LocalExecutor())
    pipeline.run(dataclasses.replace(job, overwrite=True), LocalExecutor())
    assert digest(tmp_path / "out") == before


def test_an_output_of_an_earlier_version_needs_overwrite(job, tmp_path):
    out = tmp_path / "out"
    for name in ("report.json", "rows/part-00000.parquet", "model/model.json", "manifest/rows-00000.sha256"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    (out / "job.json").write_text('{"schema": "fruits.job/1"}')
    with pytest.raises(OutputError, match=r"earlier version of Fruits.*Use `overwrite`"):
        pipeline.run(job, LocalExecutor())
    assert pipeline.run(dataclasses.replace(job, overwrite=True), LocalExecutor()).rows == 30
    assert verify(job.out, Silent()).unexpected == ()
    assert not (out / "job.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "fruits.commit/2", "owner": "../../../x", "files": {}}'])
def test_a_corrupt_commit_needs_overwrite(job, tmp_path, content):
    pipeline.run(job, LocalExecutor())
    (*_, last) = sorted((tmp_path / "out" / "commits").iterdir())
    last.write_text(content)
    with pytest.raises(OutputError, match=r"00000002\.json is corrupt.*Use `overwrite`"):
        pipeline.run(job, LocalExecutor())
    assert pipeline.run(dataclasses.replace(job, overwrite=True), LocalExecutor()).rows == 30
    assert verify(job.out, Silent()).unexpected == ()


@pytest.mark.parametrize("given", ["out", "out/", "out/model"])
def test_transform_refuses_the_folder_of_its_model(job, tmp_path, given):
    pipeline.fit(job, LocalExecutor())
    before = digest(tmp_path / "out")
    asked = dataclasses.replace(job, model=str(tmp_path / given), overwrite=True)
    with pytest.raises(SettingsError, match=r"contains the model of `model` .*Give the rows another `out`"):
        pipeline.transform(asked, LocalExecutor())
    assert digest(tmp_path / "out") == before


def test_native_solver_without_estimators_is_refused_at_once(job, tmp_path):
    executor = Counting()
    with pytest.raises(SettingsError, match="`solver` = native: the backend 'local' has no estimators of its own"):
        pipeline.run(dataclasses.replace(job, solver="native"), executor)
    assert executor.given == {}
    assert not (tmp_path / "out").exists()


def test_overwrite_resumes_the_same_unfinished_job(job):
    job = dataclasses.replace(job, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(stop_after=("featurize", 3)))
    again = Counting()
    assert pipeline.run(job, again).resumed == 3
    assert again.given["featurize"] == 5
    once_more = Counting()
    assert pipeline.run(job, once_more).resumed == 8
    assert "featurize" not in once_more.given


def test_late_parts_of_an_overwritten_job_are_not_used_and_removed(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    first = stored(tmp_path / "out", "rows/part-00000.parquet")
    late = first.read_bytes()
    other = dataclasses.replace(job, components=4, overwrite=True)
    pipeline.run(other, LocalExecutor())
    expected = digest(tmp_path / "out")
    first.write_bytes(late)
    found = verify(job.out, Silent())
    assert (found.corrupt, found.unexpected) == ((), (f"rows/{first.name}",))
    assert not found.is_intact  # pandas reads the whole folder
    assert compare(job.out, job.out).rows == 30
    pipeline.run(dataclasses.replace(other, overwrite=False), LocalExecutor())
    assert digest(tmp_path / "out") == expected
    assert verify(job.out, Silent()).is_intact


def test_an_overwritten_job_fails(job, images):
    other = dataclasses.replace(job, components=4, overwrite=True)

    class Slow(LocalExecutor):
        def map(self, task, *given, **more):
            found = super().map(task, *given, **more)
            if task.__name__ == "featurize":
                pipeline.run(other, LocalExecutor())
            return found

    with pytest.raises(OutputError, match=r"out was claimed by another job.*Give each job its own `out`"):
        pipeline.run(job, Slow())
    assert verify(other.out, Silent()).is_intact


def test_a_job_that_cannot_start_leaves_no_output(job, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "compile_network", _no_weights)
    with pytest.raises(WeightsError):
        pipeline.run(job, LocalExecutor())
    assert not (tmp_path / "out").exists()


def _no_weights(*given):
    raise WeightsError("no weights")


def test_unlisted_csv_rows_are_not_reported_as_corrupt(job, tmp_path):
    job = dataclasses.replace(job, format="csv")
    stream = io.StringIO()
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    for page in (tmp_path / "out" / "manifest").glob("rows-*"):
        page.unlink()
    pipeline.run(job, LocalExecutor(), progress=JsonLog(stream))
    assert "damage" not in [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert digest(tmp_path / "out") == before


@pytest.mark.parametrize("content", ["{", "[]", "{}", None])
def test_a_corrupt_report_is_written_again(job, tmp_path, content):
    report = pipeline.run(job, LocalExecutor())
    path = stored(tmp_path / "out", "report.json")
    path.unlink() if content is None else path.write_text(content)
    assert [part.name for part in verify(job.out, Silent()).corrupt] == [path.name]
    assert pipeline.run(job, LocalExecutor()).rows == report.rows
    assert Report.of(json.loads(path.read_text()), "report").rows == report.rows
    assert verify(job.out, Silent()).is_intact


def test_resumed_counts_only_intact_partitions(job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("write_rows", 0)))
    stored(tmp_path / "out", "features/part-00002.parquet").write_bytes(b"")
    assert pipeline.run(job, LocalExecutor()).resumed == 7


def test_an_output_that_is_a_file_is_refused(job, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        pipeline.run(job, LocalExecutor())


def test_too_many_rejects_fail_the_job_until_allowed_without_repeating_work(job):
    strict = dataclasses.replace(job, max_reject_fraction=0.05)
    with pytest.raises(RejectsError, match=r"2 of 32 images.*1 empty, 1 undecodable"):
        pipeline.run(strict, LocalExecutor())
    second = Counting()
    report = pipeline.run(dataclasses.replace(job, max_reject_fraction=0.0625), second)
    assert "featurize" not in second.given
    assert report.rows == 30


def test_an_image_that_changes_after_listing_is_a_reject(job, images, monkeypatch):
    made = output.write_list

    def then_change(*arguments):
        plan = made(*arguments)
        (images / "label 0" / "00.png").write_bytes(b"shorter")
        (images / "label 0" / "03.png").unlink()
        os.utime(images / "label 0" / "06.png", (1, 1))  # as long as before
        return plan

    monkeypatch.setattr(output, "write_list", then_change)
    report = pipeline.run(dataclasses.replace(job, max_reject_fraction=0.5), LocalExecutor())
    assert report.rejects["changed"] == 2
    assert report.rejects["unreadable"] == 1


@pytest.mark.parametrize("kind", ["empty", "no image", "one image"])
def test_unusable_image_folders_are_refused_and_leave_no_output(job, images, tmp_path, kind):
    folder = tmp_path / "few"
    (folder / "label").mkdir(parents=True)
    if kind != "empty":
        (folder / "label" / "words.txt").write_text("words")
    if kind == "one image":
        os.link(images / "label 0" / "00.png", folder / "label" / "00.png")
    says = {"empty": "is empty", "no image": "files that are not images: 1", "one image": "at least 2"}[kind]
    with pytest.raises(DatasetError, match=says):
        pipeline.run(dataclasses.replace(job, images=str(folder)), LocalExecutor())
    assert not (tmp_path / "out").exists()


def test_identical_images_are_refused(job, images, tmp_path):
    (tmp_path / "alike").mkdir()
    for number in range(9):
        (tmp_path / "alike" / f"{number}.png").write_bytes((images / "label 0" / "00.png").read_bytes())
    with pytest.raises(DatasetError, match="no feature varies"):
        pipeline.run(dataclasses.replace(job, images=str(tmp_path / "alike")), LocalExecutor())


def test_more_components_than_images_are_refused_at_once(job):
    executor = Counting()
    with pytest.raises(SettingsError, match="at most 31"):
        pipeline.run(dataclasses.replace(job, components=32), executor)
    assert executor.given == {}


def test_a_model_of_another_backbone_or_other_weights_is_refused(job, tmp_path, monkeypatch):
    pipeline.fit(job, LocalExecutor())
    applied = dataclasses.replace(job, out=str(tmp_path / "applied"), model=job.out)
    with pytest.raises(ModelError, match=r"of MobileNetV2, which contradicts `backbone` ResNet50"):
        pipeline.transform(dataclasses.replace(applied, backbone="ResNet50"), LocalExecutor())
    monkeypatch.setattr(pipeline, "compile_network", lambda *names: MeanColours(weights_digest="others"))
    with pytest.raises(ModelError, match=r"digest none.*others"):
        pipeline.transform(applied, LocalExecutor())
    assert not (tmp_path / "applied").exists()


def test_a_foreign_rejects_part_is_regenerated(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    rejects = Folder.at(str(tmp_path / "out" / "rejects"))
    first, second = (part_name(index, "parquet", owner(job.out)) for index in (0, 1))
    rejects.write(first, write_table(rejects.read_table(second)))
    second = Counting()
    pipeline.run(job, second)
    assert second.given["featurize"] == 1
    assert digest(tmp_path / "out") == before


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


STORED = {  # with how often the network runs over a partition, when it is damaged
    "plan/part-00000.parquet": 0,
    "rejects/part-00003.parquet": 1,
    "features/part-00003.parquet": 1,
    "plan/partitions.parquet": 0,
    "plan/accounts.parquet": 0,
    "moments/total.safetensors": 0,
    "model/model.json": 0,
    "model/scaled_pca.safetensors": 0,
    "rows/part-00003.parquet": 0,
    "manifest/rows-00000-????????.sha256": 0,
}
DAMAGES = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, 100),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
}


def test_only_the_corrupt_part_is_regenerated(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = digest(tmp_path / "out")
    for (name, network), how in zip(STORED.items(), itertools.cycle(DAMAGES)):
        DAMAGES[how](stored(tmp_path / "out", name))
        second = Counting()
        assert pipeline.run(job, second).rows == 30
        assert second.given.get("featurize", 0) == network, name
        expected = 8 if name.startswith("manifest/") else 1  # unlisted rows are written again, from stored features
        assert sum(second.given.get(task, 0) for task in ("featurize", "merge", "write_rows")) <= expected
        assert digest(tmp_path / "out") == before, name


def test_verify_names_corrupt_and_unexpected_files(job, tmp_path, capsys):
    pipeline.run(job, LocalExecutor())
    assert verify(job.out, Silent()).is_intact
    flip(stored(tmp_path / "out", "rows/part-00003.parquet"))
    flip(stored(tmp_path / "out", "plan/part-00000.parquet"))
    flip(stored(tmp_path / "out", "model/model.json"))
    stored(tmp_path / "out", "features/part-00001.parquet").unlink()
    stray = tmp_path / "out" / "rows" / "part-00077-0123456789ab.parquet"
    stray.touch()
    (tmp_path / "out" / "features" / "notes.txt").touch()
    found = verify(job.out, Silent())
    assert sorted(re.sub("-[0-9a-f]{12}", "", part.name) for part in found.corrupt) == [
        "features/part-00001.parquet",
        "model/model.json",
        "plan/part-00000.parquet",
        "rows/part-00003.parquet",
    ]
    assert found.unexpected == ("features/notes.txt", f"rows/{stray.name}")
    answer = output_commands.verify(job.out, quiet=True)
    answer.show(SafeConsole(width=200))
    assert answer.exit_code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:6] == [
        str(found.corrupt[3]),
        "features/notes.txt: not part of this job",
        f"rows/{stray.name}: not part of this job",
    ]
    assert lines[6].endswith(
        " bytes, intact; 4 corrupt or missing: run the command of the job again; 2 unexpected: remove them"
    )
    plan, pages, model, report, moments = 3, 3, 2, 1, 1
    assert found.parts == plan + 3 * 8 + pages + model + report + moments - 4
    pipeline.run(job, LocalExecutor())
    repaired = verify(job.out, Silent())
    assert (repaired.corrupt, repaired.unexpected, repaired.is_intact) == ((), ("features/notes.txt",), True)


@pytest.mark.parametrize("name", ["plan/partitions", "manifest/rows-00000"])
def test_verify_takes_no_file_for_unexpected_if_their_list_cannot_be_read(job, tmp_path, name):
    pipeline.run(job, LocalExecutor())
    (path,) = (tmp_path / "out").glob(f"{name}-*")
    path.unlink()
    path.mkdir()
    found = verify(job.out, Silent())
    assert [str(part) for part in found.corrupt] == [f"{path.relative_to(job.out)}: cannot be read: Is a directory"]
    assert (found.unexpected, found.is_intact) == ((), False)


@pytest.mark.parametrize(
    ("workers", "size", "text"),
    [
        (4, 16, "2 of 4 workers will be idle, because there are 2 partitions. A smaller --partition-size"),
        (2, 32, "1 of 2 workers will be idle, because there is 1 partition. A smaller --partition-size"),
        (2, 16, None),
    ],
)
def test_idle_workers_of_a_new_job_are_noted(job, workers, size, text):
    for fresh in (True, False):
        stream = io.StringIO()
        pipeline.run(
            dataclasses.replace(job, partition_size=size), LocalExecutor(workers=workers), progress=Lines(stream)
        )
        found = [line for line in stream.getvalue().splitlines() if "idle" in line]
        assert [line.startswith(text or "") for line in found] == [True] * (fresh and text is not None)


def test_verify_names_temporary_files_and_markers_which_the_next_command_removes(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    part = f"part-00000-{owner(job.out)}.parquet"
    left = [
        f".report-{owner(job.out)}.json.{'0' * 32}.tmp",
        f"rejects/.{part}.begun.tmp",
        f"rows/.{part}.{'0' * 32}.tmp",
        f"commits/.00000002.json.{'0' * 32}.tmp",
    ]
    for name in left:
        (tmp_path / "out" / name).touch()
    found = verify(job.out, Silent())
    assert (found.corrupt, found.unexpected, found.is_intact) == ((), tuple(left), True)
    pipeline.run(job, LocalExecutor())
    assert verify(job.out, Silent()).unexpected == ()


@pytest.mark.parametrize(
    ("function", "before"), [("encode_json", True), ("encode_json", False), ("complete", True), ("complete", False)]
)
def test_two_commands_repair_a_report_at_once(job, tmp_path, monkeypatch, function, before):
    pipeline.run(job, LocalExecutor())
    stored(tmp_path / "out", "report.json").write_bytes(b"{")
    original, twins = getattr(completion, function), []

    def interrupted(*arguments):
        monkeypatch.setattr(completion, function, original)
        if before:
            twins.append(pipeline.run(job, LocalExecutor()))
        result = original(*arguments)
        if not before:
            twins.append(pipeline.run(job, LocalExecutor()))
        return result

    monkeypatch.setattr(completion, function, interrupted)
    report = pipeline.run(job, LocalExecutor())
    assert [twin.images for twin in twins] == [report.images] == [32]
    assert verify(job.out, Silent()).is_intact
    assert pipeline.run(job, LocalExecutor()) == twins[0]  # the last commit counts


def test_a_flipped_bit_in_an_unlisted_partition_is_found(job):
    pipeline.run(job, LocalExecutor())
    out = Folder.at(job.out)
    owned = OwnedFolder(out, owner(job.out), 1)
    names = [owned.part(kind, 5, "parquet") for kind in ("rejects", "features")]
    batch = PartitionBatch((FinishedPartition(Partition(5, 20, 4), names[0], None, names[1], None),))
    rejects = out.read_table(names[0])
    assert rejects["path"].to_pylist() == ["label 1/broken.jpg"]
    for name, step in zip(names, (7, 53), strict=True):
        data = out.read(name)
        for place in range(0, len(data), step):
            out.write(name, data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
            found = survey(batch, owned)
            assert {part.name for part in found.corrupt} <= set(names)
            if not found.corrupt:  # in a part of the Parquet footer that is not used
                assert name == names[0]
                assert out.read_table(name).equals(rejects)
        out.write(name, data)
    found = survey(batch, owned)
    assert (found.corrupt, found.reports[0].images) == ((), 4)


@pytest.mark.parametrize(
    ("task", "name", "how"),
    [
        ("featurize", "plan/part-00000.parquet", "flipped"),
        ("featurize", "plan/part-00000.parquet", "deleted"),
        ("merge", "features/part-00003.parquet", "cut"),
        ("write_rows", "features/part-00003.parquet", "flipped"),
        ("write_rows", "features/part-00003.parquet", "deleted"),
    ],
)
def test_corruption_between_two_stages_fails_the_job_and_the_next_start_regenerates_the_part(
    job, tmp_path, task, name, how
):
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    pipeline.run(whole, LocalExecutor())

    class Corrupting(Counting):
        def map(self, given, items, *, shared=None, retries=0, progress=None):
            if given.__name__ == task and task not in self.given:
                DAMAGES[how](stored(tmp_path / "out", name))
            return super().map(given, items, shared=shared, retries=retries, progress=progress)

    with pytest.raises(
        TaskError, match=r"part-0000[03]-\w+.parquet: .*same command again: it verifies the stored parts"
    ) as caught:
        pipeline.run(job, Corrupting())
    assert caught.value.exit_code == 1
    assert not is_complete(tmp_path / "out")
    second = Counting()
    pipeline.run(job, second)
    assert second.given.get("featurize", 0) == (8 if task == "featurize" else 1)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_regenerated_features_that_differ_from_the_manifest_are_refused(job, tmp_path, monkeypatch):
    pipeline.run(job, LocalExecutor())
    stored(tmp_path / "out", "features/part-00003.parquet").unlink()
    of = MeanColours.of
    same = numeric_fingerprint(MeanColours().load())  # as if the fingerprint did not show the difference
    monkeypatch.setattr(MeanColours, "of", staticmethod(lambda *given: of(*given) + np.float32(0.5)))
    monkeypatch.setattr(identity, "numeric_fingerprint", lambda *given: same)
    monkeypatch.setattr(featurizing, "numeric_fingerprint", lambda *given: same)
    for _ in range(2):  # also when the part exists again, with the other content
        with pytest.raises(DamageError, match=r"/part-00003-\w+\.parquet was regenerated and differs.*`overwrite`"):
            pipeline.run(job, LocalExecutor())
    monkeypatch.undo()
    monkeypatch.setattr(pipeline, "compile_network", lambda backbone, engine, weights: MeanColours(backbone, engine))
    assert pipeline.run(job, LocalExecutor()).rows == 30


def test_finished_partitions_unknown_to_the_driver_are_kept(job, tmp_path):
    class Deaf(LocalExecutor):
        def map(self, given, items, *, shared=None, retries=0, progress=None):
            super().map(given, items[:5], shared=shared, retries=0)
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(job, Deaf())
    assert (tmp_path / "out" / "features").exists()
    second = Counting()
    pipeline.run(job, second)
    assert second.given["featurize"] == 3


def test_a_driver_killed_while_committing_can_be_restarted(job, tmp_path):
    (tmp_path / "out" / "commits").mkdir(parents=True)
    (tmp_path / "out" / "commits" / ".00000001.json.0123.tmp").touch()
    assert pipeline.run(job, LocalExecutor()).rows == 30


def test_temporary_files_are_swept_when_the_job_completes(job, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("write_rows", 3)))
    (out / "commits" / ".00000002.json.0123.tmp").touch()
    for folder in ("", "plan", "manifest", "rejects", "features", "moments", "model", "rows"):
        (out / folder / f".part-00000-{owner(out)}.parquet.0123.tmp").touch()
        (out / folder / ".part-00000-0123456789ab.parquet.0123.tmp").touch()
    pipeline.run(job, LocalExecutor())
    assert not list(out.rglob(".*"))


def test_overwrite_removes_the_files_of_the_previous_job(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    before = owner(job.out)
    pipeline.run(dataclasses.replace(job, components=4, overwrite=True), LocalExecutor())
    assert owner(job.out) != before
    kept = {path.parent.name for path in (tmp_path / "out").rglob(f"*{before}*")}
    assert kept == {"features", "rejects"}
    assert verify(job.out, Silent()).unexpected == ()
    assert [path.name for path in (tmp_path / "out" / "commits").iterdir()] == ["00000004.json"]


def test_an_overwriting_job_that_stops_is_not_complete(job, tmp_path):
    pipeline.run(job, LocalExecutor())
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(dataclasses.replace(job, components=4, overwrite=True), Counting(("write_rows", 0)))
    assert not is_complete(job.out)


def logged(job, executor=None):
    stream = io.StringIO()
    report = pipeline.run(job, executor or LocalExecutor(), progress=JsonLog(stream))
    return report, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_log_has_a_line_per_partition_and_counts_add_up(job):
    report, lines = logged(job)
    assert lines[0]["event"] == "job_start"
    assert lines[0]["settings"]["images"] == job.images
    assert lines[-1]["event"] == "job_end"
    assert (lines[-1]["images"], lines[-1]["rows"], lines[-1]["rejects"]) == (32, 30, report.rejects)
    for stage, steps in (("featurize", {"load", "read", "decode", "network", "write"}), ("rows", {"read", "write"})):
        parts = [line for line in lines if line["event"] == "partition" and line["stage"] == stage]
        assert sorted(part["index"] for part in parts) == list(range(8))
        assert all(part["host"] and part["pid"] and part["attempt"] == 1 for part in parts)
        assert all(set(part["steps"]) == steps and part["seconds"] > 0 for part in parts)
        assert (sum(part["rows"] for part in parts), sum(part["images"] for part in parts)) == (30, 32)
    (group,) = (line for line in lines if line["event"] == "group")
    assert (group["level"], group["tree_level"], group["index"]) == ("info", 1, 0)
    stages = [line["stage"] for line in lines if line["event"] == "stage_end"]
    assert set(stages) == set(report.seconds) | {"report"}  # it is written after report.json
    _, again = logged(job)
    assert [line for line in again if line["event"] in ("partition", "group")] == []


def test_every_field_of_the_log_is_documented(job, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    held(monkeypatch, told)

    class Log(JsonLog):
        def event(self, name, text=None, **fields):
            super().event(name, text, **fields)
            if "waiting_for" in fields:
                told.set()

    stream = io.StringIO()
    log = Log(stream)
    log.note("a fact")
    pipeline.run(job, LocalExecutor(), progress=log)
    stored(job.out, "rows/part-00003.parquet").unlink()
    pipeline.run(job, LocalExecutor(), progress=log)
    log.event("error", "it failed", type="JobError", exit_code=1)
    page = (Path(__file__).parents[3] / "docs" / "logs.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| `(\w+)` \|[^|]*\|(.*)\|$", page)
    documented = {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}
    written = {}
    for line in map(json.loads, stream.getvalue().splitlines()):
        written.setdefault(line["event"], set()).update(set(line) - {"time", "level", "event", "message"})
    assert written.keys() == documented.keys()
    assert {event: fields - documented[event] for event, fields in written.items()} == {key: set() for key in written}


def held(monkeypatch, gate):
    """Have the network wait until the gate is open."""
    load = MeanColours.load

    def waited(self):
        assert threading.current_thread() is threading.main_thread() or gate.wait(60)  # the driver only identifies it
        return load(self)

    monkeypatch.setattr(MeanColours, "load", waited)


def test_heartbeats_name_the_partitions_in_progress(job, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(heartbeat, "SECONDS", 0.01)
    held(monkeypatch, told)
    texts = []

    class Told(Silent):
        def event(self, name, text=None, **fields):
            if name == "heartbeat" and fields["stage"] == "featurize":
                texts.append((text, fields))
                told.set()

    pipeline.fit(job, LocalExecutor(workers=2), progress=Told())
    text, fields = texts[0]
    assert "waiting on 2 workers for partition 0 (4 images)" in text
    assert (fields["under_way"], fields["to_come"], fields["workers"]) == (2, 6, 2)
    assert [thread for thread in threading.enumerate() if "heartbeat" in thread.name] == []


def test_the_slowest_partitions_are_reported_for_many_partitions(job):
    assert pipeline.run(job, LocalExecutor()).slowest == []  # of eight
    report = pipeline.run(dataclasses.replace(job, out=job.out + "2", partition_size=3), LocalExecutor())
    assert len(report.slowest) == 10
    assert report.slowest == sorted(report.slowest, key=lambda part: -part["seconds"])
    assert {part["stage"] for part in report.slowest} <= {"featurize", "rows"}
