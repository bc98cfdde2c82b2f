"""Bad input and interruptions of whole jobs.

Each case ends in a clear message and an exit code, or in a row of ``rejects/``. Finished work is kept, and a resumed
job ends with the same bits. Invalid option values are tested in unit/cli.
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
from fruits.jobs.inspect.compare import compare
from tests.outputs import contents, is_complete, report_of, stored

IMAGES, PARTITION = 120, 4
# Root can read files without read permission, unless it drops these capabilities.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
KEPT = "Completed work is kept"


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Fruits = Callable[..., Ended]


@pytest.fixture
def fruits(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fruits:
    """Return a function that runs a command in this process and fails if it prints a traceback."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
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
    """Enough images to interrupt a job before its end."""
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
    """Output of a run on few images."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    finish("run", few, "--out", out, "--backend", "local", "--components", "5", "--quiet")
    return out


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an undisturbed run on many images."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(*job(many, out, "local"), "--quiet")
    return out


def job(images: Path, out: Path, backend: str) -> list[str | Path]:
    return ["run", images, "--out", out, "--backend", backend, "--workers", "2", "--components", "8",
            "--partition-size", str(PARTITION)]  # fmt: skip


def started(*arguments: str | Path, prefix: Sequence[str] = (), **options: object) -> subprocess.Popen[str]:
    """Start a command in a new process group, as a shell does."""
    command = [*prefix, sys.executable, "-m", "fruits", *map(str, arguments)]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    )


def finish(*arguments: str | Path) -> None:
    """Run a command that must succeed in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def count_parts(out: Path, folder: str = "features") -> int:
    return len(list((out / folder).glob("part-*"))) if (out / folder).is_dir() else 0


def wait_for_parts(process: subprocess.Popen[str], out: Path, count: int = 2) -> None:
    """Wait until some parts are stored, while the job is running."""
    while count_parts(out) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def assert_resumes_to_the_same_bits(fruits: Fruits, arguments: list[str | Path], out: Path, whole: Path) -> None:
    """Restart an interrupted job; check that it completes only the missing parts, with the same bits."""
    finished = count_parts(out)
    ended = fruits(*arguments, "--json", "--quiet")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert 0 < finished <= report["partitions"] == IMAGES // PARTITION
    assert report["resumed"] == finished
    assert compare(str(out), str(whole)).identical
    assert contents(out) == contents(whole)


# -- images


def test_a_missing_folder_fails_at_once_and_creates_no_output(fruits: Fruits, tmp_path: Path) -> None:
    ended = fruits("run", tmp_path / "nowhere", "--out", "out")
    assert ended.code == 2
    assert f"Error: {tmp_path}/nowhere: no such folder." in ended.err
    assert not (tmp_path / "out").exists()
    assert "engine" not in ended.err


@pytest.mark.parametrize(
    ("file", "message"), [(None, "is empty"), ("notes.txt", "files that are not images: 1, such as notes.txt")]
)
def test_a_folder_without_images_is_rejected(fruits: Fruits, tmp_path: Path, file: str | None, message: str) -> None:
    (tmp_path / "images").mkdir()
    if file:
        (tmp_path / "images" / file).write_text("text")
    ended = fruits("run", "images", "--out", "out")
    assert ended.code == 2
    assert "no image found" in ended.err
    assert message in ended.err
    assert contents(tmp_path / "out") == {}


def test_a_file_as_image_folder_is_rejected(fruits: Fruits, few: Path) -> None:
    image = next(few.glob("*/*"))
    ended = fruits("run", image, "--out", "out")
    assert ended.code == 2
    assert str(image) in ended.err


def test_unusable_files_are_listed_in_rejects(few: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(few, images)
    whole = next(images.glob("Apple/*.jpg")).read_bytes()
    (images / "Apple" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "Apple" / "zero.jpg").touch()
    (images / "Banana" / "text.png").write_text("text")
    locked = images / "Banana" / "locked.jpg"
    locked.write_bytes(whole)
    locked.chmod(0)
    arguments = ["run", images, "--out", tmp_path / "out", "--backend", "local", "--components", "5"]
    process = started(*arguments, "--max-reject-fraction", "0.2", "--json", prefix=UNPRIVILEGED)
    out, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(out)
    rejects = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    reasons = {row["path"]: row["reason"] for row in rejects}
    assert reasons == {
        "Apple/cut.jpg": "truncated",
        "Apple/zero.jpg": "empty",
        "Banana/locked.jpg": "unreadable",
        "Banana/text.png": "not-an-image",
    }
    assert all(row["detail"] for row in rejects)
    assert (report["images"], report["rows"], sum(report["rejects"].values())) == (28, 24, 4)


def test_a_job_with_only_bad_images_fails_with_their_counts(fruits: Fruits, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "images" / "a" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" * number)
    ended = fruits("run", "images", "--out", "out", "--backend", "local", "--components", "1")
    assert ended.code == 1
    assert "3 of 3 images are rejects (1 empty, 2 " in ended.err
    assert "--max-reject-fraction" in ended.err
    assert not is_complete(tmp_path / "out")


@pytest.mark.parametrize("components", ["24", "1281"])
def test_too_many_components_are_rejected_before_any_work(fruits: Fruits, few: Path, components: str) -> None:
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


def test_identical_images_are_rejected(fruits: Fruits, few: Path, tmp_path: Path) -> None:
    image = next(few.glob("Apple/*.jpg"))
    for label in ("a", "b", "c"):
        (tmp_path / "images" / label).mkdir(parents=True)
        shutil.copyfile(image, tmp_path / "images" / label / "1.jpg")
    ended = fruits("run", "images", "--out", "out", "--backend", "local", "--components", "0.9")
    assert ended.code == 2
    assert "no feature varies: all 3 images are alike" in ended.err
    assert "Give images that differ" in ended.err


# -- the output


def test_an_output_of_another_job_is_rejected_with_both_values(
    fruits: Fruits, few: Path, fitted: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted, tmp_path / "out")
    arguments = ["run", few, "--out", "out", "--backend", "local"]
    before = contents(tmp_path / "out")
    ended = fruits(*arguments, "--components", "4")
    assert ended.code == 2
    assert "out contains another job" in ended.err
    assert "components: 5 stored, 4 requested" in ended.err
    assert "--overwrite" in ended.err
    assert contents(tmp_path / "out") == before
    assert fruits(*arguments, "--components", "4", "--overwrite", "--json").code == 0
    assert report_of(tmp_path / "out")["components"] == 4


def test_an_output_with_other_files_or_a_file_is_rejected(fruits: Fruits, few: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    a_file = fruits("run", few, "--out", "file", "--overwrite")
    assert (a_file.code, "--out file is a file" in a_file.err) == (2, True)
    mine = fruits("run", few, "--out", "home", "--overwrite")
    assert (mine.code, "contains other files (thesis.tex)" in mine.err) == (2, True)
    assert (tmp_path / "file").read_text() == (tmp_path / "home" / "thesis.tex").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk_keeps_finished_parts(fruits: Fruits, many: Path, whole: Path, tmp_path: Path) -> None:
    """Rows are the largest files, so that this limit is reached when all features are stored."""
    arguments = job(many, tmp_path / "out", "dask")
    largest = max(path.stat().st_size for path in (whole / "rows").iterdir())

    def limit() -> None:  # simulates a quota
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    process = started(*arguments, preexec_fn=limit)
    err = process.communicate()[1]
    assert process.returncode == 1
    assert "File too large" in err
    assert KEPT in err
    assert "Traceback" not in err
    assert_resumes_to_the_same_bits(fruits, arguments, tmp_path / "out", whole)


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


def test_a_job_resumes_after_a_full_disk_is_enlarged(fruits: Fruits, many: Path, whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        arguments = job(many, disk / "out", "local")
        process = started(*arguments)
        err = process.communicate()[1]
        assert process.returncode == 1
        assert "No space left on device" in err
        assert KEPT in err
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        assert_resumes_to_the_same_bits(fruits, arguments, disk / "out", whole)


# -- the model


@pytest.mark.parametrize("file", ["model.json", "scaled_pca.safetensors"])
def test_a_model_with_a_changed_byte_is_rejected(
    fruits: Fruits, few: Path, fitted: Path, tmp_path: Path, file: str
) -> None:
    shutil.copytree(fitted / "model", tmp_path / "model")
    path = tmp_path / "model" / stored(fitted, f"model/{file}").name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    ended = fruits("transform", few, "--model", "model", "--out", "out", "--backend", "local")
    assert ended.code == 2
    assert str(tmp_path / "model") in ended.err
    assert not (tmp_path / "out" / "rows").exists()


def test_a_model_of_another_backbone_and_a_missing_model_are_rejected(fruits: Fruits, few: Path, fitted: Path) -> None:
    other = fruits("transform", few, "--model", fitted, "--out", "out", "--backbone", "ResNet50")
    assert other.code == 2
    assert "was fitted on features of MobileNetV2, which contradicts --backbone ResNet50" in other.err
    missing = fruits("transform", few, "--model", "nowhere", "--out", "out")
    assert missing.code == 2
    assert "nowhere" in missing.err


def test_one_image_can_be_transformed(fruits: Fruits, few: Path, fitted: Path) -> None:
    ended = fruits("transform", few, "--model", fitted, "--out", "out", "--limit", "1", "--backend", "local", "--json")
    assert (ended.code, json.loads(ended.out)["rows"]) == (0, 1)


# -- interruptions


def interrupt(arguments: list[str | Path], out: Path) -> None:
    """Stop a job with Ctrl-C before its end."""
    process = started(*arguments)
    wait_for_parts(process, out)
    os.killpg(process.pid, signal.SIGINT)  # to all processes of the group, as a terminal does
    err = process.communicate()[1]
    assert process.returncode == 130
    assert "Stopped. Completed work is kept: run the same command again to resume." in err
    assert "Traceback" not in err
    assert count_parts(out) < IMAGES // PARTITION
    while members(process.pid):  # Java ends later than the command
        time.sleep(0.01)


def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(
    fruits: Fruits, many: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = job(many, tmp_path / "out", "local")
    interrupt(arguments, tmp_path / "out")
    assert_resumes_to_the_same_bits(fruits, arguments, tmp_path / "out", whole)


def test_a_terminated_driver_resumes_after_a_restart(fruits: Fruits, many: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL: tests/chaos."""
    out = tmp_path / "out"
    arguments = job(many, out, "local")
    process = started(*arguments)
    wait_for_parts(process, out)
    process.terminate()
    process.communicate()
    assert count_parts(out) < IMAGES // PARTITION
    assert process.returncode == 143
    assert_resumes_to_the_same_bits(fruits, arguments, out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "spark"])
def test_a_job_resumes_after_ctrl_c_and_a_killed_worker_does_not_change_the_result(
    many: Path, whole: Path, tmp_path: Path, backend: str
) -> None:
    out = tmp_path / "out"
    interrupt(job(many, out, backend), out)
    finished = count_parts(out)
    process = started(*job(many, out, backend), "--json")
    wait_for_parts(process, out, finished + 2)
    workers(process.pid, backend)[0].kill()
    text, err = process.communicate()
    assert process.returncode == 0, err
    report = json.loads(text)
    assert (report["rows"], report["resumed"]) == (IMAGES, finished)
    assert contents(out) == contents(whole)


def workers(driver: int, backend: str) -> list[psutil.Process]:
    """Return the processes that run tasks."""
    line = {"dask": "multiprocessing.forkserver", "spark": "backends.spark.daemon"}[backend]  # of what forks them
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "python" in process.name() and line in " ".join(process.cmdline()) and not process.children():
                found.append(process)
    return found


def members(group: int) -> list[psutil.Process]:
    """Return the running processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
