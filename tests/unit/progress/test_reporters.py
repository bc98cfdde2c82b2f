"""Progress as lines, on a terminal and in a notebook."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest
from rich.table import Table
from rich.text import Text

from fruits.progress.console import SafeConsole
from fruits.progress.lines import Lines, Meter
from fruits.progress.notebook import Notebook, Shown
from fruits.progress.reporter import Progress, Silent
from fruits.progress.select import default, to_stderr
from fruits.progress.terminal import Terminal
from fruits.text import duration
from tests.notebooks import execute


class Clock:
    """A clock that the test advances."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_written_at_start_and_end_and_at_most_every_ten_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with Lines(stream, clock=clock).stage("featurize", total=4000) as stage:
        for seconds in (4.0, 5.0, 2.0, 9.0):
            clock.now += seconds
            stage.advance(1000)
    assert stream.getvalue().splitlines() == [
        "featurize: 4,000 to do",
        "featurize: 3,000 of 4,000 images, 273 images/s, 3.7 s left",
        "featurize: 4,000 images in 20.0 s, 200 images/s",
    ]


def test_stage_of_unknown_size_shows_the_count() -> None:
    clock, stream = Clock(), io.StringIO()
    with Lines(stream, clock=clock).stage("list", total=None) as stage:
        stage.advance(12)
        clock.now += 12
        stage.advance(12)
        clock.now += 1
    assert stream.getvalue().splitlines() == [
        "list",
        "list: 24 images, 2.0 images/s",
        "list: 24 images in 13.0 s, 1.8 images/s",
    ]


def test_stage_without_work_writes_one_line() -> None:
    stream = io.StringIO()
    with Lines(stream, clock=Clock()).stage("moments", total=0, unit="shards"):
        pass
    assert stream.getvalue() == "moments: nothing left to do in 0.0 s\n"


def test_stage_without_units_or_with_one_unit() -> None:
    stream = io.StringIO()
    lines = Lines(stream, clock=Clock())
    with lines.stage("solve", total=None):
        pass
    with lines.stage("moments", total=1, unit="groups") as stage:
        stage.advance()
    assert stream.getvalue().splitlines() == [
        "solve",
        "solve: done in 0.0 s",
        "moments: 1 to do",
        "moments: 1 group in 0.0 s",
    ]


def test_failed_stage_shows_its_count_and_raises() -> None:
    clock, stream = Clock(), io.StringIO()

    def interrupted() -> None:
        with Lines(stream, clock=clock).stage("featurize", total=10) as stage:
            stage.advance(4)
            clock.now += 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().splitlines()[-1] == "featurize: stopped at 4 of 10 images in 2.0 s, 2.0 images/s"


def test_note_is_one_line() -> None:
    stream = io.StringIO()
    Lines(stream).note("dashboard: http://127.0.0.1:8787")
    assert stream.getvalue() == "dashboard: http://127.0.0.1:8787\n"


HOSTILE = "a\x1b]0;owned\x07 [red]b\r\x9b2J \u202e :smile:"
ESCAPED = r"a\x1b]0;owned\x07 [red]b\r\x9b2J \u202e :smile:"


@pytest.mark.parametrize("kind", [Lines, Terminal])
def test_notes_escape_control_characters_and_mask_secrets(kind: type[Lines]) -> None:
    stream = io.StringIO()
    kind(stream).note(HOSTILE + "\nhttp://user:password@host/x")
    assert [line.strip() for line in stream.getvalue().splitlines()] == [ESCAPED, "http://***@host/x"]


@pytest.mark.parametrize("terminal", [True, False])
def test_console_escapes_control_characters_wherever_they_are_printed(terminal: bool) -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    for printed in (HOSTILE, Text(HOSTILE), Text.assemble((HOSTILE, "bold")), table):
        console = SafeConsole(file=io.StringIO(), width=200, force_terminal=terminal)
        console.print(printed)
        text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
        assert not re.search(r"[^\n\x20-\x7e\u2500-\u257f]", text)
        assert r"a\x1b]0;owned" in text
        assert "[red]b" in text
    assert text.count(ESCAPED) >= 2  # rich drops some control characters of its Text before they are escaped


@pytest.mark.parametrize("reporter", [Silent(), Lines(io.StringIO()), Terminal(io.StringIO())])
def test_advances_of_concurrent_threads_are_all_counted(reporter: Progress) -> None:
    with reporter.stage("featurize", total=None) as stage, ThreadPoolExecutor(8) as pool:
        for advanced in [pool.submit(stage.advance) for _ in range(1000)]:
            advanced.result()
    stream = getattr(reporter, "_stream", None)
    assert stream is None or "1,000 images" in stream.getvalue()


def test_silent_listener_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    silent: Progress = Silent()
    with silent.stage("featurize", total=3) as stage:
        stage.advance(3)
    silent.note("a fact")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("columns", [80, 120])
def test_terminal_shows_a_bar_of_its_width_and_leaves_a_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    clock = Clock()
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as screen, os.fdopen(leader, "rb", buffering=0) as seen:
        terminal = Terminal(screen, clock=clock)
        with terminal.stage("featurize", total=67_692) as stage:
            clock.now += 84.5
            stage.advance(33_846)
            bar = _read_until(seen, "33,846 of 67,692 images 401 images/s 1 min 24 s left")
            terminal.note("dashboard: http://127.0.0.1:8787")
            clock.now += 84.5
            stage.advance(33_846)
        lines = _read_until(seen, "✓ featurize 67,692 images in 2 min 49 s, 401 images/s")
    assert max(len(line) for line in re.split(r"[\r\n]+", bar + lines)) == columns
    assert "\r  dashboard: http://127.0.0.1:8787\r\n" in lines


def _read_until(seen: io.RawIOBase, text: str) -> str:
    """Return the terminal output up to `text`, without escape sequences."""
    data, plain = b"", ""
    while text not in plain:
        data += seen.read(65_536) or b""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="ignore"))
    return plain


def test_listener_is_selected_by_stream_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    def chosen(stream: TextIO, term: str, *, quiet: bool = False) -> type[Progress]:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", term)
        return type(to_stderr(quiet=quiet))

    assert chosen(Screen(), "xterm") is Terminal
    assert chosen(Screen(), "dumb") is Lines
    assert chosen(io.StringIO(), "xterm") is Lines
    assert chosen(Screen(), "xterm", quiet=True) is Silent


def test_rich_is_imported_only_for_a_terminal() -> None:
    code = "import sys; from fruits.progress.lines import Lines; Lines(); assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.84, "9.8 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.9, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_are_formatted_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Displays:
    """Stands in for IPython's display: the displays in their order, each as its versions."""

    def __init__(self) -> None:
        self.shown: list[list[Shown]] = []

    def __call__(self, thing: Shown, display_id: bool = False) -> Handle | None:
        self.shown.append([thing])
        return Handle(self.shown[-1]) if display_id else None


class Handle:
    def __init__(self, versions: list[Shown]) -> None:
        self.update = versions.append


def test_a_notebook_shows_one_bar_for_each_stage_which_its_line_replaces() -> None:
    displays, clock = Displays(), Clock()
    notebook = Notebook(displays, clock=clock)
    with notebook.stage("featurize", total=400) as stage:
        for _ in range(100):
            clock.now += 0.1
            stage.advance(4)
        notebook.note("a <b>note</b>\x1b")
    bar, note = displays.shown
    assert repr(bar[-1]) == "✓ featurize: 400 images in 10.0 s, 40 images/s"
    assert bar[10]._repr_html_().startswith('<progress value="')
    assert ' max="400"></progress><code> featurize: ' in bar[10]._repr_html_()
    assert 30 < len(bar) < 45  # at most four a second
    assert note[0]._repr_html_() == "<code>a &lt;b&gt;note&lt;/b&gt;\\x1b</code>"


def test_a_stopped_stage_is_marked_in_a_notebook() -> None:
    displays = Displays()
    with pytest.raises(KeyboardInterrupt), Notebook(displays).stage("listing", total=None):
        raise KeyboardInterrupt
    assert repr(displays.shown[0][-1]).startswith("✗ listing: stopped in ")
    assert displays.shown[0][0]._repr_html_().startswith("<progress></progress>")


def test_progress_is_shown_in_a_notebook_by_default_and_nowhere_else(tmp_path: Path) -> None:
    from nbformat.v4 import new_code_cell, new_notebook

    assert isinstance(default(), Silent)
    cells = [
        "from fruits.progress.select import default",
        "with default().stage('listing', total=2) as s: s.advance(2)",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    execute(notebook, tmp_path)
    (output,) = notebook.cells[1].outputs
    assert output.data["text/plain"].startswith("✓ listing: 2 images in ")
    assert "<code>✓ listing" in output.data["text/html"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_bar_fits_the_terminal(width: int) -> None:
    terminal = Terminal(io.StringIO(), clock=lambda: 20.0)
    terminal._console = SafeConsole(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    terminal._console.print(terminal._bar(Meter("featurize", 67692, "images", 0.0, 19.0, 33846)))
    line = re.sub(r"\x1b\[[0-9;]*m", "", terminal._console.file.getvalue()).rstrip("\n")  # type: ignore[attr-defined]
    assert len(line) <= width
    assert "featurize" in line
    assert "18.0 s left" in line
    assert ("33,846 of 67,692 images" if width == 80 else "50%") in line
