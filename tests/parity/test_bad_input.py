"""Everything that can be wrong with what a user gives, and everything that can happen to a job, one by one.

Each ends in a clear message and an exit code, or in a row of ``rejects/``; nothing that was finished is lost, and what
goes on afterwards ends with the same bits. Options with values that are not allowed are in unit/test_cli.py.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest

from fruits.cli import main as cli
from fruits.images.sample import generate
from fruits.jobs.compare import compare

IMAGES, PARTITION = 240, 4
# A superuser may read a file that nobody may read, unless that right is given up.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
SLOW = pytest.mark.slow
KEPT = "What is finished is kept"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Fruits = Callable[..., Ended]


@pytest.fixture
def fruits(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fruits:
    """Return a function that runs a command in this process; no message of it may show a traceback."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(ended.value.code, out, err)

    return run


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 3 labels."""
    folder = tmp_path_factory.mktemp("few") / "images"
    generate(folder, images=24, labels=3)
    return folder


@pytest.fixture(scope="module")
def many(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images that a job is caught in the middle of its work."""
    folder = tmp_path_factory.mktemp("many") / "images"
    sources = sorted(few.glob("*/*"))
    for number in range(IMAGES):
        source = sources[number % len(sources)]
        target = folder / source.parent.name / f"{number:03d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    return folder


@pytest.fixture(scope="module")
def fitted(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run on few images."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    finish("run", few, "--out", out, "--backend", "local", "--components", "5")
    return out


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run on many images that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(*job(many, out, "local"))
    return out


def job(images: Path, out: Path, backend: str) -> list[str | Path]:
    return ["run", images, "--out", out, "--backend", backend, "--workers", "2", "--components", "8",
            "--partition-size", str(PARTITION)]  # fmt: skip


def started(*words: str | Path, prefix: Sequence[str] = (), **options: object) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a shell does."""
    command = [*prefix, sys.executable, "-m", "fruits", *map(str, words)]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    )


def finish(*words: str | Path, prefix: Sequence[str] = ()) -> str:
    """Run a command to its good end, and return what it wrote to stdout."""
    process = started(*words, prefix=prefix)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return str(out)


def parts(out: Path, folder: str = "features") -> int:
    return len(list((out / folder).glob("part-*"))) if (out / folder).is_dir() else 0


def wait_for_parts(process: subprocess.Popen[str], out: Path, count: int = 2) -> None:
    """Return once some parts are there, and the job goes on."""
    while parts(out) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of an output but the report, whose times differ."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "report.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def goes_on_to_the_same_bits(words: list[str | Path], out: Path, whole: Path) -> None:
    """Start a job again that did not end, and check that it does what is missing and no more."""
    finished = parts(out)
    report = json.loads(finish(*words, "--json", "--quiet"))
    assert 0 < finished <= report["partitions"] == IMAGES // PARTITION
    assert report["resumed"] == finished
    assert compare(str(out), str(whole)).identical
    assert contents(out) == contents(whole)


# -- images


def test_a_missing_folder_is_told_at_once_and_leaves_nothing(fruits: Fruits, tmp_path: Path) -> None:
    ended = fruits("run", tmp_path / "nowhere", "--out", "out")
    assert ended.code == 2
    assert f"Error: {tmp_path}/nowhere: no such folder." in ended.err
    assert not (tmp_path / "out").exists()
    assert "engine" not in ended.err


@pytest.mark.parametrize(("file", "words"), [(None, "is empty"), ("notes.txt", "none of its 1 files is an image")])
def test_a_folder_without_images_is_refused(fruits: Fruits, tmp_path: Path, file: str | None, words: str) -> None:
    (tmp_path / "images").mkdir()
    if file:
        (tmp_path / "images" / file).write_text("words")
    ended = fruits("run", "images", "--out", "out")
    assert ended.code == 2
    assert "no image found" in ended.err
    assert words in ended.err
    assert contents(tmp_path / "out") == {}


def test_a_file_that_is_a_folder_of_images_is_refused(fruits: Fruits, few: Path) -> None:
    image = next(few.glob("*/*"))
    ended = fruits("run", image, "--out", "out")
    assert ended.code == 2
    assert str(image) in ended.err


def test_files_that_cannot_be_used_are_rows_of_rejects(few: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(few, images)
    whole = next(images.glob("Apple/*.jpg")).read_bytes()
    (images / "Apple" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "Apple" / "zero.jpg").touch()
    (images / "Banana" / "words.png").write_text("words")
    locked = images / "Banana" / "locked.jpg"
    locked.write_bytes(whole)
    locked.chmod(0)
    words = ["run", images, "--out", tmp_path / "out", "--backend", "local", "--components", "5"]
    report = json.loads(finish(*words, "--max-reject-fraction", "0.2", "--json", prefix=UNPRIVILEGED))
    rejects = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    reasons = {row["path"]: row["reason"] for row in rejects}
    assert reasons == {
        "Apple/cut.jpg": "truncated",
        "Apple/zero.jpg": "empty",
        "Banana/locked.jpg": "unreadable",
        "Banana/words.png": "not-an-image",
    }
    assert all(row["detail"] for row in rejects)
    assert (report["images"], report["rows"], sum(report["rejects"].values())) == (28, 24, 4)


def test_nothing_but_bad_images_fails_with_the_counts(fruits: Fruits, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "images" / "a" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" * number)
    ended = fruits("run", "images", "--out", "out", "--backend", "local", "--components", "1")
    assert ended.code == 1
    assert "3 of 3 images are rejects (1 empty, 2 " in ended.err
    assert "--max-reject-fraction" in ended.err
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize("components", ["24", "1281"])
def test_more_components_than_there_can_be_are_refused_before_the_work(
    fruits: Fruits, few: Path, components: str
) -> None:
    ended = fruits("run", few, "--out", "out", "--components", components)
    assert ended.code == 2
    assert f"--components {components}" in ended.err
    assert "23" in ended.err
    assert "engine" not in ended.err


def test_one_image_is_too_few_for_a_model(fruits: Fruits, few: Path) -> None:
    ended = fruits("run", few, "--out", "out", "--limit", "1")
    assert ended.code == 2
    assert "1 usable image: a model needs at least 2. Give more images." in ended.err
    assert "engine" not in ended.err


def test_images_that_do_not_vary_are_told(fruits: Fruits, few: Path, tmp_path: Path) -> None:
    image = next(few.glob("Apple/*.jpg"))
    for label in ("a", "b", "c"):
        (tmp_path / "images" / label).mkdir(parents=True)
        shutil.copyfile(image, tmp_path / "images" / label / "1.jpg")
    ended = fruits("run", "images", "--out", "out", "--backend", "local", "--components", "0.9")
    assert ended.code == 2
    assert "no feature varies over the 3 images" in ended.err
    assert "Give images that differ" in ended.err


# -- the output


def test_an_output_of_another_job_is_refused_with_both_values(
    fruits: Fruits, few: Path, fitted: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted, tmp_path / "out")
    words = ["run", few, "--out", "out", "--backend", "local"]
    before = contents(tmp_path / "out")
    ended = fruits(*words, "--components", "4")
    assert ended.code == 2
    assert "out contains another job" in ended.err
    assert "components: 5 stored, 4 requested" in ended.err
    assert "--overwrite" in ended.err
    assert contents(tmp_path / "out") == before
    assert fruits(*words, "--components", "4", "--overwrite", "--json").code == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["components"] == 4


def test_an_output_that_is_a_file_or_holds_other_files_is_refused(fruits: Fruits, few: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    a_file = fruits("run", few, "--out", "file", "--overwrite")
    assert (a_file.code, "--out file is a file" in a_file.err) == (2, True)
    mine = fruits("run", few, "--out", "home", "--overwrite")
    assert (mine.code, "contains other files (thesis.tex)" in mine.err) == (2, True)
    assert (tmp_path / "file").read_text() == (tmp_path / "home" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("backend", ["local", pytest.param("dask", marks=SLOW)])
def test_a_full_disk_keeps_what_is_finished(many: Path, whole: Path, tmp_path: Path, backend: str) -> None:
    """Rows are larger than all that is written before them: this limit is met when the features are there."""
    words = job(many, tmp_path / "out", backend)
    largest = max(path.stat().st_size for path in (whole / "rows").iterdir())

    def limit() -> None:  # a stand-in for a quota
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    process = started(*words, preexec_fn=limit)
    err = process.communicate()[1]
    assert process.returncode == 1
    assert "File too large" in err
    assert KEPT in err
    assert "Traceback" not in err
    goes_on_to_the_same_bits(words, tmp_path / "out", whole)


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_and_then_has_room_again(many: Path, whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        words = job(many, disk / "out", "local")
        process = started(*words)
        err = process.communicate()[1]
        assert process.returncode == 1
        assert "No space left on device" in err
        assert KEPT in err
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        goes_on_to_the_same_bits(words, disk / "out", whole)


# -- the model


@pytest.mark.parametrize("file", ["model.json", "scaled_pca.safetensors"])
def test_a_model_with_a_changed_byte_is_refused(
    fruits: Fruits, few: Path, fitted: Path, tmp_path: Path, file: str
) -> None:
    shutil.copytree(fitted / "model", tmp_path / "model")
    path = tmp_path / "model" / file
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    ended = fruits("transform", few, "--model", "model", "--out", "out", "--backend", "local")
    assert ended.code == 2
    assert str(tmp_path / "model") in ended.err
    assert not (tmp_path / "out" / "rows").exists()


def test_a_model_of_another_backbone_and_no_model_are_refused(fruits: Fruits, few: Path, fitted: Path) -> None:
    other = fruits("transform", few, "--model", fitted, "--out", "out", "--backbone", "ResNet50")
    assert other.code == 2
    assert "was fitted on features of MobileNetV2, which contradicts --backbone ResNet50" in other.err
    missing = fruits("transform", few, "--model", "nowhere", "--out", "out")
    assert missing.code == 2
    assert "nowhere" in missing.err


def test_one_image_can_be_transformed(fruits: Fruits, few: Path, fitted: Path) -> None:
    ended = fruits("transform", few, "--model", fitted, "--out", "out", "--limit", "1", "--backend", "local", "--json")
    assert (ended.code, json.loads(ended.out)["rows"]) == (0, 1)


# -- what happens to a job


@pytest.mark.parametrize("backend", ["local", pytest.param("dask", marks=SLOW), pytest.param("spark", marks=SLOW)])
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    many: Path, whole: Path, tmp_path: Path, backend: str
) -> None:
    out = tmp_path / "out"
    words = job(many, out, backend)
    process = started(*words)
    wait_for_parts(process, out)
    os.killpg(process.pid, signal.SIGINT)  # to all of its processes, as a terminal does
    err = process.communicate()[1]
    assert process.returncode == 130
    assert "Stopped. Completed work is kept: run the same command again to resume." in err
    assert "Traceback" not in err
    assert parts(out) < IMAGES // PARTITION
    while members(process.pid):  # Java takes its time
        time.sleep(0.01)
    goes_on_to_the_same_bits(words, out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_is_killed_goes_on_when_it_is_started_again(
    many: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    words = job(many, out, "local")
    process = started(*words)
    wait_for_parts(process, out)
    process.send_signal(number)
    process.communicate()
    assert parts(out) < IMAGES // PARTITION
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    goes_on_to_the_same_bits(words, out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "spark"])
def test_a_worker_that_is_killed_changes_nothing(many: Path, whole: Path, tmp_path: Path, backend: str) -> None:
    out = tmp_path / "out"
    process = started(*job(many, out, backend), "--json")
    wait_for_parts(process, out)
    workers(process.pid, backend)[0].kill()
    text, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(text)
    assert (report["rows"], report["resumed"]) == (IMAGES, 0)
    assert contents(out) == contents(whole)


def workers(driver: int, backend: str) -> list[psutil.Process]:
    """Return the processes that run tasks."""
    python = [process for process in psutil.Process(driver).children(recursive=True) if "python" in process.name()]
    if backend == "dask":
        return [process for process in python if "spawn_main" in " ".join(process.cmdline())]
    return [process for process in python if "daemon" in " ".join(process.cmdline()) and not process.children()]


def members(group: int) -> list[psutil.Process]:
    """Return the processes of a group that run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
