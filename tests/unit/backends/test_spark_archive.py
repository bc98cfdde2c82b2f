from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backends.spark.archive import LEFT_SECONDS, archive_options, end_archive


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "java"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the home of a Java 17 of which nothing works but the dump of its own classes."""
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\n[ "$1" = -Xshare:dump ] && echo base > "${2#-XX:SharedArchiveFile=}"\n')
    java.chmod(0o755)
    (tmp_path / "java" / "release").write_text('JAVA_VERSION="17.0.9"\n')
    return tmp_path / "java"


def written_by_java(options: list[str]) -> Path:
    """Write what Java would at its end, where the options tell it to."""
    (made,) = (Path(option.strip('"').partition("=")[2]) for option in options if "ArchiveClassesAtExit" in option)
    made.write_text("top")
    return made


def test_the_first_session_makes_what_later_ones_use(cache: Path, home: Path) -> None:
    first = archive_options(home)
    written_by_java(first)
    end_archive(keep=True)
    base, top = sorted(cache.iterdir(), key=lambda path: len(path.name), reverse=True)
    assert (base.read_text(), top.read_text()) == ("base\n", "top")
    assert f'"-XX:SharedArchiveFile={base}"' in first
    assert f'"-XX:SharedArchiveFile={base}:{top}"' in archive_options(home)
    assert not any("ArchiveClassesAtExit" in option for option in archive_options(home))


def test_what_a_killed_session_left_is_not_taken_for_an_archive(cache: Path, home: Path) -> None:
    made = written_by_java(archive_options(home))
    assert any("ArchiveClassesAtExit" in option for option in archive_options(home))
    assert not made.exists()
    end_archive(keep=True)
    assert [path.name.endswith("-base.jsa") for path in cache.iterdir()] == [True]


def test_of_two_first_sessions_one_archive_stays(cache: Path, home: Path) -> None:
    made = written_by_java(archive_options(home))
    top = made.with_name(made.name.removesuffix(f".{os.getpid()}.tmp"))
    top.write_text("theirs")
    end_archive(keep=True)
    assert top.read_text() == "theirs"
    assert not made.exists()


def test_what_a_session_that_did_not_work_wrote_is_no_archive(cache: Path, home: Path) -> None:
    written_by_java(archive_options(home))
    end_archive(keep=False)
    assert [path.name.endswith("-base.jsa") for path in cache.iterdir()] == [True]
    assert any("ArchiveClassesAtExit" in option for option in archive_options(home))


def test_what_other_processes_left_is_swept_once_it_is_old(cache: Path, home: Path) -> None:
    cache.mkdir(parents=True)
    old, fresh = cache / "spark.jsa.1.tmp", cache / "spark.jsa.2.tmp"
    for path in (old, fresh):
        path.write_text("")
    long_ago = time.time() - LEFT_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    archive_options(home)
    assert (old.exists(), fresh.exists()) == (False, True)


@pytest.mark.parametrize("release", ['JAVA_VERSION="11.0.2"', 'JAVA_VERSION="1.8.0_402"', ""])
def test_an_old_java_starts_as_it_always_did(cache: Path, home: Path, release: str) -> None:
    (home / "release").write_text(release)
    assert archive_options(home) == []


def test_a_java_that_cannot_dump_starts_as_it_always_did(cache: Path, home: Path) -> None:
    (home / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
    assert archive_options(home) == []
