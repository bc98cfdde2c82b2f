"""Contracts of the structure: import directions, cycles, sizes, and the cost of importing."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.import_graph import (
    cycles,
    find_modules,
    import_graph,
    imported_names,
    too_large,
    wrong_directions,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fruits", "backends", "benchmarks")
COMMAND_LINE = ("fruits.cli", "fruits.__main__", "backends.aws.cli", "backends.aws.cli_options", "benchmarks")
LAYERS = (  # lowest first
    ("fruits.text", "fruits.machine"),
    ("fruits.errors",),
    ("fruits.parameters",),
    ("fruits.pages",),
    ("fruits.progress",),
    ("fruits.storage",),
    ("fruits.images", "fruits.network", "fruits.model", "fruits.clusters"),
    ("fruits.plan",),
    ("fruits.executor", "fruits.image_features"),
    ("fruits.jobs",),
    ("fruits.recogniser",),
    ("fruits.serving",),
    ("fruits",),  # the public names alone
    ("backends",),
    COMMAND_LINE,
)
BENCHMARK_LAYERS = (
    ("benchmarks.cases", "benchmarks.peers"),
    ("benchmarks.record", "benchmarks.inputs"),
    ("benchmarks.scenarios",),
    ("benchmarks.answers",),
    ("benchmarks.measure", "benchmarks.report"),
    ("benchmarks.load", "benchmarks.numerics", "benchmarks.precision", "benchmarks.training", "benchmarks.updates"),
    ("benchmarks.cli",),
    ("benchmarks",),
)
PER_FOLDER, LINES = 10, 450
DIRECT = {"fruits": 8}
HEAVY = [
    "dask",
    "distributed",
    "pyspark",
    "tensorflow",
    "keras",
    "boto3",
    "botocore",
    "matplotlib",
    "pandas",
    "sklearn",
]
ON_DEMAND = {
    "fruits.storage.s3.file_system",
    "fruits.storage.s3.store",
}  # imported only when an address on S3 is opened
HELP_SECONDS = 0.5  # where an empty program takes 12.5 ms


def write_package(root: Path, sources: dict[str, str]) -> None:
    """Write the modules of a package `app`: name, such as ``a.b`` for ``app/a/b.py``, → source."""
    for name, source in sources.items():
        path = root.joinpath("app", *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


# -- the project


def test_imports_run_from_higher_to_lower_layers() -> None:
    assert wrong_directions(import_graph(ROOT, *PACKAGES), LAYERS, exact=["fruits"], free=COMMAND_LINE) == []


def test_imports_of_the_benchmarks_run_from_higher_to_lower_layers() -> None:
    assert wrong_directions(import_graph(ROOT, "benchmarks"), BENCHMARK_LAYERS, exact=["benchmarks"]) == []


def test_no_module_imports_itself_through_others() -> None:
    assert cycles(import_graph(ROOT, *PACKAGES)) == []


def test_folders_and_files_are_small() -> None:
    modules = find_modules(ROOT, *PACKAGES)
    assert too_large(modules, direct=DIRECT, per_folder=PER_FOLDER, lines=LINES) == []


# -- the rules


def test_every_form_of_import_is_detected(tmp_path: Path) -> None:
    source = (
        "import a.b, c as d\nfrom e import f\nfrom . import g\nfrom ..h import i\n"
        "if TYPE_CHECKING:\n    from n import o\n"
        "def later():\n    import j\n    importlib.import_module('k.l')\n    __import__('m')\n    find_spec('p')\n"
    )
    write_package(tmp_path, {"deep.module": source})
    names = sorted(imported_names(tmp_path / "app" / "deep" / "module.py", tmp_path))
    assert names == ["a.b", "app.deep.g", "app.h.i", "c", "e.f", "j", "k.l", "m", "n.o", "p"]
    assert list(find_modules(tmp_path, "app")) == ["app.deep.module"]


def test_an_import_is_resolved_to_the_module_that_defines_the_name(tmp_path: Path) -> None:
    write_package(
        tmp_path, {"__init__": "", "a": "from app import b\nfrom app.b import name\nimport os", "b": "import app"}
    )
    assert import_graph(tmp_path, "app") == {"app": set(), "app.a": {"app.b"}, "app.b": {"app"}}


LAYERED = (("app.low",), ("app.left", "app.right"), ("app.high", "app.top"))


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("high.x", "from app.low import x", []),
        ("high.x", "from app.top import x", []),  # free
        ("low.y", "import app.low.x", []),
        ("low.y", "from app.high.x import x", ["app.low.y imports app.high.x"]),
        ("low.y", "def later():\n    from app.high import x", ["app.low.y imports app.high.x"]),
        ("low.y", "if TYPE_CHECKING:\n    import app.high.x", ["app.low.y imports app.high.x"]),
        ("low.y", "importlib.import_module('app.left')", ["app.low.y imports app.left"]),
        ("left", "import app.right", ["app.left imports app.right"]),
        ("low.y", "import app", ["app.low.y imports app"]),
        ("new", "", ["app.new is in no layer"]),
    ],
)
def test_an_import_in_the_wrong_direction_is_detected(
    tmp_path: Path, module: str, source: str, wrong: list[str]
) -> None:
    write_package(tmp_path, dict.fromkeys(["__init__", "low.x", "left", "right", "high.x", "top"], ""))
    write_package(tmp_path, {module: source})
    layers = (*LAYERED, ("app",))
    assert wrong_directions(import_graph(tmp_path, "app"), layers, exact=["app"], free=LAYERED[-1]) == wrong


@pytest.mark.parametrize(
    "source",
    [
        "import app.a",
        "from app.a import name",
        "from . import a",
        "def later():\n    from app import a",
        "if TYPE_CHECKING:\n    from app.a import Name",
        "importlib.import_module('app.a')",
    ],
)
def test_a_cycle_is_detected_in_every_form(tmp_path: Path, source: str) -> None:
    write_package(tmp_path, {"a": "import app.b", "b": "from app import c", "c": source, "d": "import app.a"})
    assert cycles(import_graph(tmp_path, "app")) == [["app.a", "app.b", "app.c", "app.a"]]


def test_a_tree_of_imports_has_no_cycle(tmp_path: Path) -> None:
    write_package(tmp_path, {"a": "import app.b, app.c", "b": "import app.d", "c": "import app.d", "d": ""})
    assert cycles(import_graph(tmp_path, "app")) == []


def test_large_folders_and_files_are_detected(tmp_path: Path) -> None:
    write_package(tmp_path, dict.fromkeys(["__init__", "a", "sub.__init__", "sub.b"], ""))
    write_package(tmp_path, {"sub.a": "\n" * 5, "sub.c": "\n" * 7})

    def check(direct: int, per_folder: int, lines: int) -> list[str]:
        return too_large(find_modules(tmp_path, "app"), direct={"app": direct}, per_folder=per_folder, lines=lines)

    assert check(2, 3, 7) == []
    assert check(1, 3, 7) == ["app has 2 modules, 1 are allowed"]
    assert check(2, 2, 7) == ["app.sub has 3 modules, 2 are allowed"]
    assert check(2, 3, 6) == ["app.sub.c has 7 lines, 6 are allowed"]


# -- the cost of importing


def loaded_by(*names: str) -> dict[str, list[str]]:
    """Return which of HEAVY and of the other packages each import, in order in a new process, is the first to load."""
    program = (
        "import importlib, json, sys\n"
        "watched, names = json.loads(sys.argv[1])\n"
        "loaded = {}\n"
        "for name in names:\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = sorted(set(watched) & set(sys.modules) - before)\n"
        "print(json.dumps(loaded))"
    )
    request = json.dumps([[*HEAVY, "backends", "benchmarks"], names])
    done = subprocess.run([sys.executable, "-c", program, request], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    return loaded


def test_no_module_of_the_core_loads_an_engine() -> None:
    names = [name for name in find_modules(ROOT, "fruits") if name not in ON_DEMAND]
    assert "fruits.cli.main" in names
    assert loaded_by(*names) == {name: [] for name in names}


def test_a_loaded_engine_is_detected() -> None:
    assert loaded_by("fruits", "backends.local", "pandas") == {
        "fruits": [],
        "backends.local": ["backends"],
        "pandas": ["pandas"],
    }


def test_the_table_of_backends_loads_no_engine() -> None:
    assert loaded_by("backends") == {"backends": ["backends"]}


def test_importing_fruits_loads_none_of_its_modules() -> None:
    program = "import sys, fruits; print([name for name in sys.modules if name.startswith('fruits.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_help_takes_less_than_half_a_second() -> None:
    help_command = [str(Path(sys.executable).with_name("fruits")), "--help"]
    empty, seconds = [], []
    for _ in range(10):  # the least processor time of several tries, so that other work on the machine does not count
        empty.append(processor_seconds([sys.executable, "-I", "-c", "print('Usage')"]))
        seconds.append(processor_seconds(help_command))
        if min(seconds) < HELP_SECONDS:
            break
    assert min(seconds) < max(HELP_SECONDS, min(empty) / 0.0125 * HELP_SECONDS), (seconds, empty)


def processor_seconds(command: list[str]) -> float:
    """Return the processor time of a command that prints its usage."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
