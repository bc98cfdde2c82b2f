"""The command line: messages, streams and exit codes. Whole jobs are in parity/."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from fruits.cli import display
from fruits.cli import main as cli
from fruits.errors import JobError, TaskError
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import Comparison, Difference
from fruits.jobs.report import Report, SliceReport
from fruits.progress.console import SafeConsole
from fruits.storage.folder import Folder
from tests.plans import claimed

COMMANDS = ("demo", "sample", "weights", "run", "fit", "transform", "compare")


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Fruits = Callable[..., Ended]


@pytest.fixture
def fruits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fruits:
    """Return a function that runs a command in this process."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)

    def run(*argv: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def images(tmp_path: Path) -> str:
    folder = tmp_path / "images"
    folder.mkdir()
    return str(folder)


def report(out: Path, **changes: object) -> Report:
    values: dict[str, object] = {
        "command": "run",
        "out": str(out),
        "images": 3932,
        "rows": 3930,
        "rejects": {"empty": 1, "truncated": 1},
        "ignored": 16,
        "labels": 131,
        "skipped": {"not-image": 12, "hidden": 3, "link": 1},
        "partitions": 4,
        "resumed": 1,
        "seconds": {"listing": 0.1, "featurize": 9.8, "rows": 1.2},
        "worker_seconds": {},
        "images_per_second": 401.2,
        "components": 200,
        "explained_variance_ratio": [0.5 / 2**index for index in range(200)],
        "components_reaching": {"0.8": 70, "0.9": 122, "0.95": 184},
    }
    return Report(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with two parts of rows, the first of them empty."""
    folder = tmp_path / "out"
    (folder / "rows").mkdir(parents=True)
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False), 4)
    owned = claimed(Folder(str(folder)), {"command": "run", "format": "parquet"}, 8, 4)
    for part, labels in enumerate(([], ["Apple", None, "Two\nlines", "Pear"])):
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(np.arange(4 * len(labels), dtype=np.float32) / 4), type=kind
        )
        table = pa.table({
            "path": pa.array([f"{label}/1.jpg" for label in labels], pa.string()),
            "label": pa.array(labels, pa.string()),
            "features": vectors,
            "scaled_features": vectors,
            "pca_features": vectors,
        })  # fmt: skip
        pq.write_table(table, folder / "rows" / f"part-0000{part}-{owned.owner}.parquet")
    return folder


def rendered(show: Callable[[Console], None], *, terminal: bool, width: int = 80) -> str:
    console = SafeConsole(width=width, force_terminal=terminal, no_color=True)
    with console.capture() as captured:
        show(console)
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get())


# -- help and usage errors


def test_help_lists_every_command_and_each_command_has_an_example(fruits: Fruits) -> None:
    overview = fruits("--help")
    assert overview.code == 0
    assert fruits() == overview
    for name in COMMANDS:
        assert f" {name} " in overview.out
        helped = fruits(name, "--help")
        assert helped.code == 0
        assert re.search(rf"Example: fruits {name}\b", helped.out)


def test_help_imports_no_heavy_library() -> None:
    heavy = "{'numpy', 'pyarrow', 'yaml', 'dask', 'distributed', 'pyspark', 'openvino', 'keras', 'backends'}"
    code = (
        "import sys, fruits.cli.main\n"
        "try:\n    fruits.cli.main.main(['run', '--help'])\n"
        f"except SystemExit:\n    assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(fruits: Fruits) -> None:
    assert re.fullmatch(r"fruits \d+\.\d+\.\d+\S*\n", fruits("--version").out)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? Allowed: demo, run, "),
        (["run", "a"], "Missing option '--out'"),
        (["run", "--out", "b"], "Missing argument 'IMAGES'"),
        (["run", "a", "--out", "b", "--workrs", "2"], "No such option: --workrs"),
        (["run", "a", "--out", "b", "--limit", "few"], "Invalid value for '--limit'"),
        (["transform", "a", "--out", "b"], "Missing option '--model'"),
        (["compare", "a"], "Missing argument 'OUT_B'"),
        (["compare", "a", "b", "--tolerance", "-1"], "Invalid value for '--tolerance'"),
    ],
)
def test_usage_error_exits_with_2_and_points_to_help(fruits: Fruits, argv: list[str], message: str) -> None:
    ended = fruits(*argv)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert re.search(r"See fruits.* --help\.", ended.err)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--components", "abc", "--components abc: not a number. Allowed: a count of at least 1, such as 200, or a"),
        ("--components", "0", "--components 0: not allowed. Allowed: a count of at least 1, or a fraction"),
        ("--components", "-3", "--components -3: not allowed."),
        ("--components", "1.5", "--components 1.5: not allowed."),
        ("--components", "nan", "--components nan: not allowed."),
        ("--backbone", "VGG", "--backbone VGG: not known. Allowed: MobileNetV2"),
        ("--engine", "onnx", "--engine onnx: not known. Allowed: openvino, tensorflow."),
        ("--solver", "fast", "--solver fast: not known. Allowed: exact, native."),
        ("--format", "json", "--format json: not known. Allowed: parquet, csv."),
        ("--columns", "label,colour", "--columns colour: not known. Allowed: path, label, features"),
        ("--partition-size", "0", "--partition-size 0: not allowed. Allowed: 1 or more, up to 16,384."),
        ("--shards", "5/4", "--shards 5/4: not allowed. Allowed: i/n, the i-th of n slices, such as 1/4 to 4/4."),
        ("--limit", "0", "--limit 0: not allowed."),
        ("--max-reject-fraction", "2", "--max-reject-fraction 2.0: not allowed. Allowed: 0 to 1."),
        ("--backend", "ray", "--backend ray: no such backend. Allowed: dask, spark, local."),
        ("--cluster", "nowhere", "--cluster nowhere: no such cluster. Allowed: local-dask"),
        ("--cluster-file", "none.yaml", "--cluster-file none.yaml cannot be read: No such file"),
        ("--workers", "0", "--workers 0: not a count of workers."),
    ],
)
def test_invalid_option_value_exits_with_2_and_lists_allowed_values(
    fruits: Fruits, images: str, option: str, value: str, message: str
) -> None:
    ended = fruits("run", images, "--out", "out", option, value)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: {message}")
    assert "Traceback" not in ended.err
    assert not Path("out").exists()


def test_missing_extra_names_the_install_command(fruits: Fruits, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = fruits("run", images, "--out", "out", "--backend", "spark")
    assert ended.code == 2
    assert "pyspark is not installed. Install it with: pip install 'fruits[spark]'" in ended.err


# -- exit codes and streams


def test_json_output_is_one_object_even_if_libraries_write_to_stdout(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom fruits.cli import main as cli\nfrom fruits.jobs.inspect.compare import Comparison\n"
        "def noisy(a, b):\n"
        "    os.write(1, b'from a library')\n    print('from Python')\n    os.system('echo from a child')\n"
        "    return Comparison(3, True, ())\n"
        "sys.modules['fruits.jobs.inspect.compare'].compare = noisy\ncli.main(['compare', 'a', 'b', '--json'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == {
        "identical": True, "rows": 3, "model": True, "largest": 0.0, "same": True, "differences": []
    }  # fmt: skip
    for noise in ("from a library", "from Python", "from a child"):
        assert noise in ended.stderr


def test_errors_are_json_with_json_option(fruits: Fruits) -> None:
    ended = fruits("compare", "nowhere", "nowhere", "--json")
    error = json.loads(ended.out)["error"]
    assert (ended.code, error["type"], error["exit_code"]) == (2, "OutputError", 2)
    assert "nowhere: no finished output" in error["message"]
    usage = fruits("run", "--json")
    assert (usage.code, json.loads(usage.out)["error"]["exit_code"]) == (2, 2)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, fruits: Fruits, images: str) -> Callable[..., Ended]:
    """Return a function that runs a job which raises an exception."""

    def run(error: BaseException, *argv: str) -> Ended:
        def work(*values: object, **named: object) -> Iterator[None]:
            raise error

        monkeypatch.setattr(pipeline, "run", work)
        return fruits("run", images, "--out", "out", "--backend", "local", "--quiet", *argv)

    return run


def test_failed_job_exits_with_1_and_shows_traceback_only_with_debug(failing: Callable[..., Ended]) -> None:
    trace = 'Traceback (most recent call last):\n  File "worker.py", line 1\nOSError: gone'
    error = TaskError("partition 7 failed after 3 attempts. OSError: gone")
    error.add_note(trace)
    ended = failing(error)
    assert ended == Ended(1, "", "Error: partition 7 failed after 3 attempts. OSError: gone\n")
    assert 'File "worker.py", line 1' in failing(error, "--debug").err
    assert failing(JobError("[red]no markup[/red]")).err == "Error: [red]no markup[/red]\n"


def test_unexpected_exception_exits_with_1_and_suggests_debug(failing: Callable[..., Ended]) -> None:
    ended = failing(RuntimeError("a fault"))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: RuntimeError: a fault\n")
    assert "Unexpected error. Add --debug" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in failing(RuntimeError("a fault"), "--debug").err


def test_ctrl_c_exits_with_130_and_explains_resuming(failing: Callable[..., Ended]) -> None:
    ended = failing(KeyboardInterrupt())
    assert ended == Ended(130, "", "Stopped. Completed work is kept: run the same command again to resume.\n")
    assert json.loads(failing(KeyboardInterrupt(), "--json").out)["error"]["exit_code"] == 130


def test_ctrl_c_promises_no_resuming_where_nothing_is_kept(fruits: Fruits, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*values: object, **named: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fruits.images.sample.generate", generate)
    assert fruits("sample", "photos") == Ended(130, "", "Stopped.\n")
    assert fruits("demo", "--backend", "local", "--quiet") == Ended(130, "", "Stopped.\n")


def test_sigterm_runs_cleanup_and_exits_with_143(fruits: Fruits, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    closed = []

    def work(job: object, executor: object, **named: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append(job)

    monkeypatch.setattr(pipeline, "run", work)
    ended = fruits("run", images, "--out", "out", "--backend", "local", "--quiet")
    assert (ended.code, len(closed)) == (143, 1)
    assert "run the same command again" in ended.err
    assert signal.getsignal(signal.SIGTERM) is before


def in_bash(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which $0 is Python, in a folder."""
    return subprocess.run(["bash", "-c", command, sys.executable], cwd=folder, capture_output=True, text=True)


def test_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    command = '"$0" -m fruits sample sample --images 8 --json | true; echo ${PIPESTATUS[0]}'
    ended = in_bash(command, tmp_path)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_command_works_without_standard_streams(tmp_path: Path, closed: str) -> None:
    command = f'"$0" -m fruits sample sample --images 8 --json {closed}'
    ended = in_bash(command, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) if ">&-" not in closed.replace("2>&-", "") else ended.stdout == ""
    assert len([path for path in (tmp_path / "sample").rglob("*") if path.is_file()]) == 8


def test_stderr_that_cannot_be_written_changes_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    command = f"{sys.executable} -m fruits pack {tmp_path}/images --out {tmp_path}/out --json 2> /dev/full"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, json.loads(ended.stdout)["error"]["type"]) == (2, "DatasetError")


@pytest.mark.parametrize("options", ["", "--json"])
def test_stdout_that_cannot_be_written_is_an_error(tmp_path: Path, options: str) -> None:
    command = f'"$0" -m fruits sample sample --images 8 {options} > /dev/full'
    ended = in_bash(command, tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        "Error: the result cannot be written to stdout: No space left on device. The command itself has finished.\n",
    )


def test_a_removed_current_folder_is_named(fruits: Fruits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = fruits("run", str(tmp_path / "images"), "--out", "out")
    assert (ended.code, ended.err) == (2, "Error: the current folder was removed. Change to another one, with cd.\n")


def test_memory_of_the_command_is_refused(fruits: Fruits) -> None:
    ended = fruits("run", "images", "--out", "memory://out")
    assert (ended.code, "--out memory://out: not allowed, because this memory is lost" in ended.err) == (2, True)


@pytest.mark.parametrize(("shell", "text"), [("bash", "complete -o"), ("zsh", "#compdef fruits"), ("fish", "complete")])
def test_completion_scripts_are_generated(shell: str, text: str) -> None:
    environ = os.environ | {"_FRUITS_COMPLETE": f"source_{shell}"}
    script = subprocess.run([sys.executable, "-m", "fruits"], env=environ, capture_output=True, text=True, check=False)
    assert text in script.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fruits tr", {"train", "transform"}),
        ("fruits run --backend ", {"dask", "spark", "local"}),
        ("fruits run --cluster local-", {"local-dask", "local-spark"}),
        ("fruits run --engine ", {"openvino", "tensorflow"}),
        ("fruits fit --decode ", {"reduced", "full"}),
        ("fruits fit --solver ", {"exact", "native"}),
        ("fruits train --crops ", {"1", "2"}),
        ("fruits weights --backbone M", {"MobileNetV2"}),
        ("fruits predict --format ", {"parquet", "csv"}),
        ("fruits run --columns path,l", {"path,label"}),
    ],
)
def test_values_are_completed(line: str, offered: set[str], tmp_path: Path) -> None:
    environ = os.environ | {
        "_FRUITS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "fruits"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert set(ended.stdout.split()) == offered


# -- text for people


def test_error_wraps_between_words_on_a_terminal() -> None:
    text = rendered(cli._failure(JobError("word " * 40), "word " * 40, 1, debug=False).show, terminal=True)
    assert max(map(len, text.splitlines())) <= 80
    assert set(text.split()) == {"Error:", "word"}


@pytest.mark.parametrize("width", [80, 120])
def test_report_fits_the_terminal_and_contains_all_facts(out: Path, width: int) -> None:
    text = rendered(lambda console: display.show_report(console, report(out), str(out)), terminal=True, width=width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for fact in (
        "images 3,932, 131 labels",
        "skipped files that are not images: 12",
        "hidden files and folders (.*): 3; --include-hidden includes them",
        "links to folders, and to files outside: 1; --follow-links includes them",
        "rows 3,930",
        "2: 1 empty, 1 truncated",
        "401 images/s; 1 of 4 partitions already done",
        "PC1",
        "50.0%",
        "components to reach 80%: 70, 90%: 122, 95%: 184",
        "label features scaled_features pca_features",
        "Apple [0.00, 0.25, …]",
        "(no label)",
        "Two\\nlines",
    ):
        assert fact in flat
    assert "Pear" not in flat
    assert "".join(str(out).split()) in "".join(text.split())


@pytest.mark.parametrize(("step", "shown"), [("decode", "limit Decoding is the bottleneck"), ("network", None)])
def test_report_states_that_decoding_limits_the_speed(out: Path, step: str, shown: str | None) -> None:
    limited = dataclasses.replace(report(out), worker_seconds={"read": 1.0, "decode": 2.0, "network": 3.5, step: 30.0})
    text = rendered(lambda console: display.show_report(console, limited, str(out)), terminal=False, width=1000)
    assert ("bottleneck" in text) is (shown is not None)
    assert shown is None or shown in " ".join(text.split())


def test_report_fits_a_narrow_terminal(out: Path) -> None:
    text = rendered(lambda console: display.show_report(console, report(out), str(out)), terminal=True, width=40)
    assert max(map(len, text.splitlines())) <= 40
    flat = " ".join(text.split())
    for fact in (
        "images 3,932, 131 labels",
        "components to reach 80%: 70, 90%: 122, 95%: 184",
        "label pca_features",
        "Apple [0.00, 0.25, …]",
        "next fruits train",
    ):
        assert fact in flat


@pytest.mark.parametrize(
    ("changes", "following"),
    [
        ({"command": "run"}, "fruits train {} --out RECOGNISER"),
        ({"command": "run", "labels": 1}, "fruits transform IMAGES --model {} --out ROWS"),
        ({"command": "fit"}, "fruits transform IMAGES --model {} --out ROWS"),
        ({"command": "transform"}, "fruits verify {}"),
    ],
)
def test_report_suggests_one_command(out: Path, changes: dict[str, object], following: str) -> None:
    moved = out.rename(out.with_name("it's out"))
    done = report(moved, **changes)
    text = rendered(lambda console: display.show_report(console, done, str(moved)), terminal=False, width=1000)
    assert re.findall(r"(?m)^next +(.+?) *$", text) == [following.format(shlex.quote(str(moved)))]


def test_report_of_predictions_shows_them_with_their_confidence(tmp_path: Path) -> None:
    owned = claimed(Folder(str(tmp_path / "out")), {"command": "predict", "format": "parquet"}, 2, 2)
    columns = {"path": ["a/1.jpg", "b/2.jpg"], "label": ["Apple", None], "prediction": ["Pear", None]}
    columns |= {"confidence": [0.9712, 0.31], "reason": [None, "uncertain"]}
    (tmp_path / "out" / "rows").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "out" / "rows" / f"part-00000-{owned.owner}.parquet")
    done = report(tmp_path / "out", command="predict", explained_variance_ratio=[])
    shown = [
        rendered(lambda console: display.show_report(console, done, done.out), terminal=is_terminal, width=width)
        for is_terminal, width in ((False, 1000), (True, 80), (True, 40))
    ]
    assert "Apple | prediction Pear | confidence 97.1% | reason \n" in shown[0]
    assert "(no label) | prediction (not recognised) | confidence 31.0% | reason uncertain" in shown[0]
    assert re.search(r"label +prediction +confidence +reason", shown[1])
    for text in shown[1:]:
        assert re.search(r"Apple +Pear +97.1%", text)
    assert max(map(len, shown[2].splitlines())) <= 40


def test_report_is_plain_lines_in_a_pipe(out: Path) -> None:
    text = rendered(lambda console: display.show_report(console, report(out), str(out)), terminal=False, width=1000)
    lines = text.splitlines()
    assert "Apple | features [0.00, 0.25, …] | scaled_features [0.00, 0.25, …] | pca_features [0.00, 0.25, …]" in lines
    assert ["files", f"{out}/"] in [line.rstrip().split(maxsplit=1) for line in lines]


def test_report_of_a_fit_has_no_rows(tmp_path: Path) -> None:
    text = rendered(
        lambda console: display.show_report(console, report(tmp_path, command="fit"), str(tmp_path)), terminal=True
    )
    assert "scaled_features" not in text
    assert "model/" in text


@pytest.mark.parametrize(
    ("left", "text"), [(50, "50 of 100 partitions done. When all are done, run"), (0, "done. To finish the job, run")]
)
def test_slice_report_shows_progress_and_the_finishing_command(tmp_path: Path, left: int, text: str) -> None:
    values = report(tmp_path, partitions=25).to_dict()
    shared = {name: value for name, value in values.items() if name in SliceReport.__dataclass_fields__}
    done = SliceReport(shards="2/4", partitions_of_job=100, partitions_left=left, **shared)
    flat = " ".join(rendered(lambda console: display.show_report(console, done, str(tmp_path)), terminal=True).split())
    assert "2/4 done: 25 of the job's 100 partitions" in flat
    assert text in flat
    assert "run the same command without --shards." in flat


def test_report_of_one_component_and_of_an_already_finished_job(tmp_path: Path) -> None:
    done = report(tmp_path, command="fit", components=1, explained_variance_ratio=[0.25], images_per_second=0.0)
    text = rendered(lambda console: display.show_report(console, done, str(tmp_path)), terminal=True)
    assert "25.0%" in text
    assert "no image left to featurize" in text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Comparison(3930, True, ()), "identical to the last bit: 3,930 rows and model\n"),
        (Comparison(0, True, ()), "identical to the last bit: model\n"),
        (Comparison(1310, False, ()), "identical to the last bit: 1,310 rows\n"),
    ],
)
def test_identical_outputs_print_one_line(found: Comparison, text: str) -> None:
    assert rendered(lambda console: display.show_comparison(console, found), terminal=False) == text


def test_different_outputs_list_columns_and_largest_difference(fruits: Fruits, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = (Difference("pca_features", 1200, 3.5e-7, "row 17 + 0, 3"),)
    monkeypatch.setattr("fruits.jobs.inspect.compare.compare", lambda a, b: Comparison(3930, True, differences))
    ended = fruits("compare", "a", "b")
    assert ended.code == 1
    assert ended.out.startswith("different: 3,930 rows different, by at most 3.5e-07; model identical\n")
    assert re.search(r"pca_features\s+1,200\s+3.5e-07\s+row 17 \+ 0, 3", ended.out)
    within, beyond = (fruits("compare", "a", "b", "--tolerance", each) for each in ("1e-6", "1e-7"))
    assert (within.code, beyond.code) == (0, 1)
    assert within.out.startswith("the same within 1e-06: 3,930 rows different, by at most 3.5e-07; model identical\n")
    assert beyond.out.startswith("different: 3,930 rows different")


@pytest.mark.parametrize(
    ("rows", "model", "names", "text"),
    [
        (
            262,
            True,
            {"model.mean": 6e-14, "model.scale": 1e-15},
            "262 rows identical; model different, by at most 6e-14",
        ),
        (262, True, {"label": math.inf}, "262 rows different; model identical"),
        (0, False, {"rows": math.inf}, "rows in one output only: 1"),
        (0, True, {"model.mean": 2.0}, "model different, by at most 2"),
        (9, True, {"model.mean": 2.0, "path": math.inf}, "9 rows different; model different, by at most 2"),
    ],
)
def test_comparison_states_for_rows_and_model_whether_they_differ(
    rows: int, model: bool, names: dict[str, float], text: str
) -> None:
    found = Comparison(rows, model, tuple(Difference(name, 1, largest, "") for name, largest in names.items()))
    shown = rendered(lambda console: display.show_comparison(console, found), terminal=False)
    assert shown.splitlines()[0] == f"different: {text}"


def test_sign_of_zero_is_a_difference_unless_tolerated(fruits: Fruits, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = (Difference("pca_features", 1, 0.0, "row 0 + 0, 0"),)
    monkeypatch.setattr("fruits.jobs.inspect.compare.compare", lambda a, b: Comparison(1, False, differences))
    assert fruits("compare", "a", "b").code == 1
    assert fruits("compare", "a", "b", "--tolerance", "0").code == 0


def test_sample_images_are_written_to_local_folders_only(fruits: Fruits, tmp_path: Path) -> None:
    for argv in (("sample", "s3://bucket/photos"), ("demo", "--out", "s3://bucket/demo")):
        ended = fruits(*argv)
        assert (ended.code, "sample images are generated on this machine" in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_demo_without_its_backend_generates_no_image(
    fruits: Fruits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = fruits("demo", "--out", "demo", "--backend", "dask")
    assert (ended.code, "pip install 'fruits[dask]'" in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_demo_rejects_images_of_another_demo(fruits: Fruits, tmp_path: Path) -> None:
    assert fruits("sample", "demo/images", "--images", "20", "--broken", "2").code == 0
    ended = fruits("demo", "--out", "demo", "--images", "30", "--backend", "local")
    assert ended.code == 2
    assert "--images 30: demo/images contains 22 files; this demo needs 33." in ended.err


def test_unknown_command_lists_the_commands_of_its_group(fruits: Fruits) -> None:
    assert "Allowed: demo, run, fit," in fruits("ran").err
    ended = fruits("cluster", "list")
    assert ended.code == 2
    assert "Allowed: init, remove, doctor, stage, render," in ended.err


def test_sample_writes_files_and_prints_their_folder(fruits: Fruits, tmp_path: Path) -> None:
    ended = fruits("sample", "photos", "--images", "4", "--labels", "2", "--broken", "1")
    assert ended == Ended(0, "Wrote 5 files to photos. Next: fruits run photos --out OUT\n", "")
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["Apple", "Banana"]
    again = fruits("sample", "photos")
    assert (again.code, again.out) == (2, "")
    assert "not an empty folder" in again.err


def test_pack_prints_counts_and_how_the_archives_are_used(fruits: Fruits, images: str) -> None:
    for name in ("Apple/1.jpg", "Apple/2.jpg", "Pear/1.jpg", "Pear/1.png"):
        path = Path(images) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff\xe0" * 3000)
    (Path(images) / "Apple" / "notes.doc").write_text("words")
    ended = fruits("pack", images, "--out", "shards", "--shard-size", "40kB", "--quiet")
    assert ended.code == 0
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines == [
        "images 4",
        "skipped files that are not images: 1",
        "archives 2, 0.1 MB",
        "next fruits run 'shards/*.tar' --out RESULT",
    ]
    again = fruits("pack", images, "--out", "shards", "--json")
    assert again.code == 2
    assert "--out " in again.out
    assert "or use --overwrite to replace" in again.out
    assert fruits("pack", images, "--out", "shards", "--overwrite", "--json", "--quiet").code == 0
    small = fruits("pack", images, "--out", "other", "--shard-size", "9")
    assert (small.code, "--shard-size 9: not allowed. Allowed: at least 10,000" in small.err) == (2, True)


def test_pattern_that_the_shell_has_expanded_is_an_error_with_advice(fruits: Fruits) -> None:
    ended = fruits("run", "1.tar", "2.tar", "--out", "out")
    assert (ended.code, "Quote the pattern of archives" in ended.err) == (2, True)


def test_stopped_pack_has_to_be_overwritten(fruits: Fruits, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fruits.images.tar.pack.pack", stop)
    ended = fruits("pack", images, "--out", "out")
    assert (ended.code, "run the command again with --overwrite" in ended.err) == (130, True)
