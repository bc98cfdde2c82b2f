"""Who imports whom, read from the source and seen at run time; and that the command line answers at once."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSES = ("fruits", "backends", "benchmarks")
FRONT = ("backends", "benchmarks")  # what the command line may import, and nobody else in the core
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
ON_DEMAND = {"fruits.storage.s3.file_system"}  # imported where an address on S3 is opened, and by nothing else
HELP_SECONDS = 0.5


def modules(house: str) -> dict[str, Path]:
    """Return the modules of a package, name → file."""
    found = {}
    for path in sorted((ROOT / house).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a module imports, in a function or by a literal name too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = path.relative_to(ROOT).parent.parts
                base = ".".join([*package[: len(package) - level + 1], *filter(None, [module])]) if level else module
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]
            ):
                if called in ("import_module", "__import__", "find_spec"):
                    yield name


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_core_imports_no_engine_house_and_nobody_imports_the_command_line() -> None:
    allowed = {"fruits": {"fruits"}, "backends": {"fruits", "backends"}, "benchmarks": set(HOUSES)}
    wrong = []
    for house in HOUSES:
        for module, path in modules(house).items():
            front = within(module, "fruits.cli")
            for name in imported(path):
                other = name.partition(".")[0]
                across = other in HOUSES and other not in allowed[house] and not (front and other in FRONT)
                if across or (within(name, "fruits.cli.main") and house == "backends"):
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_the_walk_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    package = tmp_path / "fruits" / "deep"
    package.mkdir(parents=True)
    module = package / "module.py"
    module.write_text(
        "import a.b, c as d\nfrom e import f\nfrom . import g\nfrom ..h import i\n"
        "def later():\n    import j\n    importlib.import_module('k.l')\n    __import__('m')\n"
    )
    assert sorted(imported(module)) == ["a.b", "c", "e.f", "fruits.deep.g", "fruits.h.i", "j", "k.l", "m"]
    assert list(modules("fruits")) == ["fruits.deep.module"]


def brought_in(*names: str) -> dict[str, list[str]]:
    """Return what of HEAVY and of the other houses each module was the first to bring into a new process."""
    program = (
        "import importlib, json, sys\n"
        "heavy, names = json.loads(sys.argv[1])\n"
        "brought = {}\n"
        "for name in names:\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(name)\n"
        "    brought[name] = sorted(set(heavy) & set(sys.modules) - before)\n"
        "print(json.dumps(brought))"
    )
    given = json.dumps([[*HEAVY, "backends", "benchmarks"], names])
    done = subprocess.run([sys.executable, "-c", program, given], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def test_no_module_of_the_core_brings_in_an_engine() -> None:
    names = [name for name in modules("fruits") if name not in ON_DEMAND]
    assert "fruits.cli.main" in names
    assert brought_in(*names) == {name: [] for name in names}


def test_what_is_brought_in_is_noticed() -> None:
    assert brought_in("fruits", "backends.local", "pandas") == {
        "fruits": [],
        "backends.local": ["backends"],
        "pandas": ["pandas"],
    }


def test_the_table_of_backends_brings_in_no_engine() -> None:
    assert brought_in("backends") == {"backends": ["backends"]}


def test_help_answers_in_under_half_a_second() -> None:
    command = [str(Path(sys.executable).with_name("fruits")), "--help"]
    seconds = []
    for _ in range(10):  # processor time, and the least of several: what else the machine is busy with does not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if seconds[-1] < HELP_SECONDS:
            break
    assert min(seconds) < HELP_SECONDS, seconds
