"""The commands and links of the README and the documentation are valid; the README's tutorial is executed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyspark
import pytest
import typer

from backends.spark.java import find_java
from fruits.cli.main import app
from fruits.images.decode import REASONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
OTHER_PROGRAMS = {"source", "pip", "python"}  # in the README's blocks, besides those that are parsed here
MOST_LINES = 130


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```", text)


def console_lines(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the arguments of each command in the console blocks, and the lines of output below it."""
    for block in blocks(text, "console"):
        for command in re.split(r"(?m)^ *\$ ", block.replace("\\\n", " "))[1:]:
            line, *output = command.splitlines()
            yield arguments_of(line), [expected.strip() for expected in output if expected.strip()]


def commands(text: str, program: str) -> list[list[str]]:
    """Return the arguments of the commands of a program: in console blocks, and in code spans of the text."""
    spans = re.findall(rf"`({program} [^`|]+)`", re.sub(r"(?ms)^ *```.*?^ *```", "", text))
    lines = [arguments for arguments, _ in console_lines(text)]
    return [arguments[1:] for arguments in [*lines, *map(arguments_of, spans)] if arguments[:1] == [program]]


def arguments_of(line: str) -> list[str]:
    """Return the arguments of a command in a shell line, up to a pipe, a redirection or another command."""
    return list(takewhile(lambda word: word not in ("|", "&&", ">", "2>"), shlex.split(line, comments=True)))


def parse(arguments: list[str]) -> None:
    """Parse a command line as ``fruits`` does, without running it; a usage error is raised."""
    command: Any = typer.main.get_command(app)
    name = "fruits"
    while hasattr(command, "commands"):
        if arguments and arguments[0] in ("--help", "-h", "--version"):
            return
        assert arguments, "a command is missing"
        name, *arguments = arguments
        assert name in command.commands, f"fruits {name}: no such command"
        command = command.commands[name]
    command.make_context(name, list(arguments))


def parse_quoted(arguments: list[str]) -> None:
    """Parse a command that the text quotes, perhaps without its arguments: ``fruits verify``, ``fruits cluster``."""
    if "COMMAND" in arguments:
        return
    try:
        parse(arguments)
    except Exception as error:
        if not str(error).startswith(("Missing parameter", "a command is missing")):
            raise


# -- commands


def test_the_readme_is_short_and_runs_only_known_programs() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= MOST_LINES
    assert {arguments[0] for arguments, _ in console_lines(text)} <= {"fruits", "make"} | OTHER_PROGRAMS


@pytest.mark.parametrize("page", PAGES)
def test_every_fruits_command_of_a_page_parses(page: str) -> None:
    text = read(page)
    for arguments, _ in console_lines(text):
        if arguments[0] == "fruits":
            parse(arguments[1:])
    for arguments in commands(text, "fruits"):
        parse_quoted(arguments)


def test_the_table_of_commands_is_complete() -> None:
    command: Any = typer.main.get_command(app)
    assert {arguments[0] for arguments in commands(read("README.md"), "fruits")} >= set(command.commands)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    parse(["run", "photos", "--out", "out", "--backend", "spark"])
    with pytest.raises(AssertionError, match="no such command"):
        parse(["ran", "photos"])
    with pytest.raises(Exception, match="--nonsuch"):
        parse(["run", "photos", "--out", "out", "--nonsuch", "1"])


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_of_a_page_exists(page: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", read("Makefile")))
    quoted = {word for words in commands(read(page), "make") for word in words if "=" not in word}
    assert quoted <= targets
    assert page != "README.md" or {"demo", "test"} <= quoted


@pytest.mark.parametrize("page", PAGES)
def test_every_extra_of_a_page_exists(page: str) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    named = {
        extra.strip()
        for extras in re.findall(r"fruits(?:-[\w.-]+\.whl)?\[([\w, ]+)\]", read(page))
        for extra in extras.split(",")
    }
    assert named <= set(project["optional-dependencies"])


def test_the_documentation_installs_the_wheel_of_this_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert set(re.findall(r"fruits-([\w.]+)-py3-none-any\.whl", read("README.md") + read("docs/serving.md"))) == {
        version
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_of_the_readme_and_the_python_examples_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, examples = read("README.md"), read("docs/python.md")
    tutorial = readme[readme.index("## Ten minutes") : readme.index("## From a table")].replace("200", "60")  # faster
    for arguments, expected in console_lines(tutorial):
        assert arguments[0] == "fruits"
        done = run([sys.executable, "-m", *arguments], tmp_path)
        assert [line for line in expected if line not in done.stdout.splitlines()] == []
    job, model, images, *frames = blocks(examples, "python")
    (tmp_path / "tutorial.py").write_text("\n".join([*blocks(tutorial, "python"), model, images, *frames]))
    monkeypatch.setenv("JAVA_HOME", str(find_java(pyspark.__version__)))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    (tmp_path / "job.py").write_text(job)
    label, path = run([sys.executable, "tutorial.py"], tmp_path).stdout.split()
    assert path.startswith(f"{label}/")
    assert run([sys.executable, "job.py"], tmp_path).stdout.startswith("60 {} ")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


# -- links and tables


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_link_to_a_file_or_a_heading_exists(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", read(page)):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (heading and heading not in headings(path.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


def headings(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_table_of_reject_reasons_is_complete() -> None:
    text = read("docs/output.md")
    table = text[text.index("| reason |") :].split("\n\n")[0]
    assert tuple(re.findall(r"(?m)^\| `([a-z-]+)` \|", table)) == REASONS


def test_the_table_of_log_events_is_complete() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "fruits").rglob("*.py"))
    emitted = set(re.findall(r"\bevent\(\s*\"([a-z_]+)\"", sources))
    assert "damage" in emitted
    assert set(re.findall(r"(?m)^\| `([a-z_]+)` \|", read("docs/logs.md"))) == emitted


# -- the example backend


def test_the_example_backend_works(tmp_path: Path) -> None:
    (example,) = (block for block in blocks(read("CONTRIBUTING.md"), "python") if "class ProcessesExecutor" in block)
    assert len(example.splitlines()) <= 40
    (tmp_path / "processes.py").write_text(example)
    program = """
import operator
from processes import ProcessesExecutor
from fruits.clusters.cluster import Cluster
from fruits.errors import TaskError

if __name__ == "__main__":
    reported = []
    progress = lambda index, outcome: reported.append(outcome.value)
    with ProcessesExecutor.from_cluster(Cluster("mine", "processes", 2)) as executor:
        assert executor.map(operator.mul, range(9), shared=3, progress=progress) == list(range(0, 27, 3))
        assert sorted(reported) == list(range(0, 27, 3))
        try:
            executor.map(operator.truediv, [1], shared=0, retries=0)
        except TaskError as error:
            print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 failed after 1 attempts. ZeroDivisionError")


# -- the architecture page


def test_every_name_in_the_table_of_changes_exists_in_the_files_beside_it() -> None:
    text = read("docs/architecture.md")
    table = text[text.index("| change |") :]
    wrong = []
    for row in table.splitlines()[2:]:
        quoted = re.findall(r"`([^` ]+)`", row)
        paths = [name for name in quoted if "/" in name or re.search(r"\.(md|toml|yaml)$", name)]
        sources = "".join(path.read_text("utf-8") for name in paths if (path := ROOT / name).is_file())
        wrong += [name for name in paths if not (ROOT / name).exists()]
        wrong += [name for name in quoted if name not in paths and not re.search(rf"\b{re.escape(name)}\b", sources)]
    assert wrong == []


def test_every_path_in_the_architecture_page_exists() -> None:
    quoted = re.findall(r"`?((?:fruits|backends|benchmarks|tests|docs)/[\w/.]*)`?", read("docs/architecture.md"))
    assert len(quoted) > 50
    assert [name for name in quoted if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/python.md", "docs/storage.md", "CONTRIBUTING.md"])
def test_every_identifier_that_a_page_quotes_exists(page: str) -> None:
    folders = ("fruits", "backends", "benchmarks")
    source = "".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    prose = re.sub(r"(?ms)^```.*?^```", "", read(page))
    quoted = {name for name in re.findall(r"`\.?(\w+)(?:\([^`]*\))?`", prose) if re.search(r"_|[a-z][A-Z]", name)}
    outside = {name for name in quoted if name.startswith(("AWS_", "FRUITS", "FSSPEC_", "test_"))}
    assert {name for name in quoted - outside if not re.search(rf"\b{name}\b", source)} == set()
