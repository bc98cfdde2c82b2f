"""The run report: content, limits, hostile names, ownership, and failures."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fruits
from backends.local import LocalExecutor
from fruits.errors import DamageError, OutputError, SettingsError
from fruits.jobs import pipeline
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from fruits.jobs.reporting import counts, findings, vectors, write
from fruits.jobs.reporting.label_section import label_section
from fruits.jobs.reporting.neighbours import NEAR, find_neighbours, find_outliers
from fruits.jobs.reporting.page import render
from fruits.jobs.reporting.speed_section import bottleneck, speed_section
from fruits.jobs.reporting.timeline import MOST, Timeline
from fruits.jobs.stored import StoredJob
from fruits.progress.lines import Lines
from fruits.progress.reporter import Silent
from fruits.storage.folder import Folder
from tests.outputs import commit_of, is_complete, report_of, stored
from tests.pages import Page, requests
from tests.unit.jobs.test_pipeline import images, job, network  # noqa: F401 - the fixtures of a small job


@pytest.fixture
def done(job: Job) -> Job:  # noqa: F811
    """A finished run of 30 images and 2 rejects."""
    pipeline.run(job, LocalExecutor())
    return job


def page_of(job: Job) -> str:  # noqa: F811
    return stored(job.out, "report.html").read_text("utf-8")


def stored_job(job: Job) -> StoredJob:  # noqa: F811
    return StoredJob.load(Folder.at(job.out), commit_of(job.out))


# -- content


def test_a_run_writes_a_page_with_every_section(done: Job) -> None:
    html = page_of(done)
    page = Page(html)
    flat = " ".join(page.text.split())
    for text in (
        "fruits run",
        "32images listed",
        "30usable",
        "3 labels, 32 images. The largest has 11, the smallest 10",
        "Explained variance",
        "30 of 30 rows, in 8 of 8 parts; the first 5 principal components",
        "Near-duplicates",
        "Outliers",
        "Rejected images",
        "label 1/broken.jpg",
        "Seconds of all workers by step",
        "features.network.backboneMobileNetV2",
        "versions.numpy",
    ):
        assert text in flat, text
    pictures = [attributes for tag, attributes in page.tags if tag == "image"]
    assert len(pictures) > 3
    assert all((each["href"] or "").startswith("data:image/jpeg;base64,") for each in pictures)
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert requests(html) == []


@pytest.mark.parametrize("command", ["fit", "transform", "transform-csv", "transform-labels", "from-features"])
def test_every_kind_of_job_has_a_page(done: Job, tmp_path: Path, command: str) -> None:
    out = str(tmp_path / "other")
    if command == "fit":
        other = dataclasses.replace(done, out=out)
        pipeline.fit(other, LocalExecutor())
    elif command == "from-features":
        other = dataclasses.replace(done, images=done.out, out=out)
        pipeline.fit(other, LocalExecutor())
    else:
        changes = {"transform-csv": {"format": "csv"}, "transform-labels": {"columns": ("path", "label")}}
        other = Job(images=done.images, out=out, model=done.out, **changes.get(command, {}))  # type: ignore[arg-type]
        pipeline.transform(other, LocalExecutor())
    page = Page(page_of(other))
    assert ("Not examined" in page.text) == (command == "transform-labels")
    assert any(tag == "image" for tag, _ in page.tags) == (command != "transform-labels")
    assert "label 1/broken.jpg" in page.text
    assert requests(page_of(other)) == []


def test_jobs_without_a_report_can_get_one_later(job: Job) -> None:  # noqa: F811
    without = dataclasses.replace(job, report=False)
    pipeline.run(without, LocalExecutor())
    assert list(Path(job.out).glob("*.html")) == []
    address = fruits.write_report(job.out)
    assert Path(address) == stored(job.out, "report.html")
    first = page_of(job)
    assert fruits.write_report(job.out) == address
    assert page_of(job) == first


def test_report_json_has_the_throughput_of_all_images(done: Job) -> None:
    throughput = report_of(done.out)["throughput"]
    assert sum(throughput["images"]) == pytest.approx(32, abs=0.1)
    assert 0 < throughput["seconds"] <= throughput["interval"] * len(throughput["images"])


def test_a_page_needs_a_finished_job_with_a_report(done: Job, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no finished output"):
        fruits.write_report(str(tmp_path / "nowhere"))
    sliced = dataclasses.replace(done, out=str(tmp_path / "slice"), shards="1/2")
    pipeline.run(sliced, LocalExecutor())
    with pytest.raises(OutputError, match="its job has not finished"):
        fruits.write_report(sliced.out)
    assert list(Path(sliced.out).glob("*.html")) == []


def test_names_are_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)<'\"&> \u202e"
    for label in (hostile, "x" * 200, "Pear"):
        for number in range(6):
            path = tmp_path / "images" / label / f"<img src=x onerror=alert({number})>.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * number, 99, len(label))).save(path)
        (path.parent / "<b>broken.png").write_bytes(b"\x89PNG")
    done = Job(images=str(tmp_path / "images"), out=str(tmp_path / "<i>out"), components=2, max_reject_fraction=0.5)
    pipeline.run(done, LocalExecutor())
    html = page_of(done)
    page = Page(html)
    assert requests(html) == []
    assert "\u202e" not in html
    assert "<script>alert" in page.text  # as text


# -- limits


def test_ten_thousand_labels_and_noisy_pictures_stay_below_two_megabytes(done: Job) -> None:
    found = findings.examine(stored_job(done), Report.of(report_of(done.out), "report"))
    rows = 4000
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (72, 72, 3), np.uint8)).save(file, "JPEG", quality=80)
    names = [f'{number:05d}<&>"\x00' + "\U000e0001" * 200 for number in range(10_000)]
    scores = random.standard_normal((rows, 4)).astype(np.float32)
    scores[1::2] = scores[::2] + 1e-3
    sample = vectors.Vectors([f"{name}/{name}" for name in names[:rows]], list(names[:rows]), scores, 4, 4)
    near = find_neighbours(scores)
    within, across = (near.closest(numbers, sample.labels, 10) for numbers in near.split(sample.labels))
    pca = findings._pca_map(sample)
    assert pca is not None
    large = dataclasses.replace(
        found,
        labels=counts.LabelCounts(dict.fromkeys(names, 3), "listed images"),
        vectors=sample,
        neighbours=near,
        within=within,
        across=across,
        pca=pca,
        tsne=pca,
        pictures=dict.fromkeys(sample.paths, file.getvalue()),
    )
    html = render(large)
    assert 400_000 < len(html.encode()) < write.MOST_BYTES
    assert requests(html) == []
    assert "10,000 labels" in Page(html).text
    assert len(render(large, pictures=False).encode()) < write.MOST_BYTES / 2


def test_a_page_that_is_too_large_has_no_pictures(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "data:image/jpeg" in page_of(done)
    monkeypatch.setattr(write, "MOST_BYTES", 1000)
    fruits.write_report(done.out)
    assert "data:image/jpeg" not in page_of(done)


def test_a_bounded_number_of_parts_is_read_and_stated(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read = stored_job(done)
    monkeypatch.setattr(vectors, "MOST_PARTS", 3)
    few = vectors.read_vectors(read, read)
    assert few is not None
    assert (few.parts, few.of) == (3, 8)
    monkeypatch.setattr(vectors, "MOST_BYTES", 1)
    one = vectors.read_vectors(read, read)
    assert one is not None
    assert one.parts == 1
    assert set(one.paths) < set(few.paths)
    fruits.write_report(done.out)
    assert "rows, in 1 of 8 parts chosen by hash" in page_of(done)


def test_of_more_images_than_are_counted_the_moments_count_labels(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read = stored_job(done)
    listed = counts.count_labels(read)
    assert (sum(listed.counts.values()), listed.note) == (32, "listed images")
    monkeypatch.setattr(counts, "MOST_PAGES", 0)
    usable = counts.count_labels(read)
    assert (dict(usable.counts), usable.note) == ({f"label {n}": 10 for n in range(3)}, "usable images")
    monkeypatch.setattr(StoredJob, "moments", lambda self: None)
    assert counts.count_labels(read).note.startswith("0 of the 32 listed images, on 0 pages")


def test_pictures_stop_when_time_is_up(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "PICTURE_SECONDS", -1.0)
    fruits.write_report(done.out)
    assert len(set(re.findall(r"data:image/jpeg;base64,\S+?(?=\")", page_of(done)))) == 1


# -- ownership and failures


def test_the_page_belongs_to_the_output(done: Job) -> None:
    assert verify(done.out, Silent()).unexpected == ()
    first = stored(done.out, "report.html")
    before = first.stat().st_mtime_ns
    pipeline.run(done, LocalExecutor())  # verifies the complete output, and keeps the page
    assert first.stat().st_mtime_ns == before
    first.unlink()
    pipeline.run(done, LocalExecutor())
    assert first.exists()
    pipeline.run(dataclasses.replace(done, components=4, overwrite=True), LocalExecutor())
    assert not first.exists()
    assert stored(done.out, "report.html").exists()


def test_an_update_removes_the_pictures_of_deleted_images(done: Job) -> None:
    next(Path(done.images).rglob("*.png")).unlink()
    pipeline.run(dataclasses.replace(done, update=True, report=False), LocalExecutor())
    assert list(Path(done.out).glob("*.html")) == []


def test_a_superseded_job_cannot_write_a_page(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    render_page = write.render

    def supersede(*arguments: object, **named: object) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(write, "render", render_page)
            pipeline.run(dataclasses.replace(done, components=4, overwrite=True), LocalExecutor())
        return render_page(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "render", supersede)
    with pytest.raises(OutputError, match="claimed by another job"):
        fruits.write_report(done.out)
    assert list(Path(done.out).glob("*.html")) == [stored(done.out, "report.html")]


def test_corrupt_features_are_an_error_of_the_page(done: Job) -> None:
    part = stored(done.out, "features/part-00003.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamageError, match=r"features/part-00003-\w+\.parquet is corrupt"):
        fruits.write_report(done.out)


def test_a_failed_page_does_not_fail_the_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(findings: object) -> str:
        raise ValueError("a fault")

    monkeypatch.setattr(write, "render", fail)
    log = io.StringIO()
    report = pipeline.run(job, LocalExecutor(), progress=Lines(log))
    assert report.rows == 30
    assert is_complete(job.out)
    line = next(line for line in log.getvalue().splitlines() if "could not be written" in line)
    assert line.endswith(f"ValueError: a fault Write it with: fruits report {job.out}")


def test_tsne_needs_scikit_learn(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fruits.write_report(done.out, tsne=True)
    assert "t-SNE of the first principal components of 30 images" in Page(page_of(done)).text
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(SettingsError, match=r"pip install 'fruits\[report\]'"):
        fruits.write_report(done.out, tsne=True)


# -- near-duplicates and outliers


def test_near_duplicates_are_found_and_distant_pairs_are_not() -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((6000, 32)).astype(np.float32)
    typical = np.sqrt(2 * rows.var(axis=0).sum())
    for step, distance in enumerate((0.0, 0.5 * NEAR, 0.95 * NEAR)):
        direction = random.standard_normal((1000, 32))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        first = 2000 * step
        rows[first + 1000 : first + 2000] = rows[first : first + 1000] + typical * distance * direction
    found = find_neighbours(rows)
    pairs = set(map(tuple, found.pairs.tolist()))
    for step, least in enumerate((1000, 990, 880)):
        planted = {(2000 * step + n, 2000 * step + 1000 + n) for n in range(1000)}
        assert len(planted & pairs) >= least, step
    assert (found.distances <= NEAR * 1.001).all()
    assert (np.diff(found.distances) >= 0).all()
    left, right = rows[found.pairs[:, 0]], rows[found.pairs[:, 1]]
    exact = np.linalg.norm(left - right, axis=1) / np.sqrt(2 * rows.var(axis=0).sum())
    assert found.distances == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.ones((1, 3)), np.ones((500, 3))])
def test_rows_without_spread_have_no_neighbours(rows: np.ndarray) -> None:
    assert len(find_neighbours(rows.astype(np.float32)).pairs) == 0


def test_the_work_is_bounded_if_most_rows_are_equal() -> None:
    rows = np.zeros((20_000, 8), np.float32)
    rows[:2] = 5.0
    started = time.process_time()
    found = find_neighbours(rows)
    assert len(found.pairs) <= 24 * 8 * len(rows)
    assert time.process_time() - started < 20


def test_outliers_are_far_from_the_mean_of_their_label() -> None:
    random = np.random.default_rng(2)
    rows = random.standard_normal((120, 4)).astype(np.float32)
    labels: list[str | None] = ["Apple"] * 50 + ["Pear"] * 50 + ["Few"] * 4 + [None] * 16
    rows[50:100] += 30  # far from the other label is no outlier
    rows[[7, 60, 102, 110]] += 20
    found = find_outliers(rows, labels, most=10)
    assert {each.row for each in found[:2]} == {7, 60}
    assert {labels[each.row] for each in found} == {"Apple", "Pear"}
    assert len(found) == 4  # two of each label
    assert find_outliers(rows, labels, most=1) == found[:1]


# -- sections


def test_timeline_is_bounded_and_keeps_every_image() -> None:
    timeline = Timeline()
    assert timeline.to_dict() == {}
    for number in range(3000):
        timeline.add(10, 100.0, 100.0 + number, 104.0 + number)
    values = timeline.to_dict()
    assert len(values["images"]) <= MOST
    assert sum(values["images"]) == pytest.approx(30_000, rel=1e-4)
    assert values["seconds"] == 3003.0
    middle = values["images"][10:-10]
    assert middle == pytest.approx([10 * values["interval"]] * len(middle), rel=0.01)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ({"read": 1.0, "decode": 2.0, "network": 10.0}, "The network is the bottleneck: it takes 77 %"),
        ({"read": 1.0, "decode": 20.0, "network": 10.0}, "Decoding is the bottleneck: it takes 65 %"),
        ({"read": 30.0, "decode": 2.0, "network": 10.0}, "Reading is the bottleneck: it takes 71 %"),
        ({"read": 2.0, "write": 98.0}, "The network did not run"),
        ({"load": 6.0, "decode": 1.0, "network": 5.0}, "The job is small: loading the network takes 50 %"),
    ],
)
def test_the_report_names_the_bottleneck(steps: dict[str, float], text: str) -> None:
    limit, advice = bottleneck(steps)
    assert limit.startswith(text)
    assert bool(advice) == text.startswith(("Decoding", "Reading"))


def test_a_job_that_ran_no_network_has_no_throughput(done: Job) -> None:
    report = Report.of(report_of(done.out), "report")
    text = speed_section(dataclasses.replace(report, worker_seconds={}, throughput={}, resumed=8))
    assert "It ran no network" in text
    assert "8 of 8 partitions were finished before" in text


def test_imbalance_of_labels() -> None:
    few = Page(label_section({"Apple": 90, "Pear": 10, "": 5}, "listed images")).text
    assert "2 labels, 100 images. The largest has 90, the smallest 10, a ratio of 9" in few
    assert "Half of the images are in the 1 largest. 5 images have no label." in few
    many = label_section({f"label {n:05d}": 1 + n for n in range(10_000)}, "listed images")
    assert "label 09999" in many
    assert "label 05000" not in many
    assert len(many) < 20_000
    assert "No image has a label" in label_section({"": 7}, "listed images")
