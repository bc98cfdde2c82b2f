"""Modified commits and reports: reported as another job or as corrupt, never with a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fruits.errors import FruitsError, OutputError
from fruits.images.sample import generate
from fruits.jobs.identity import check_same
from fruits.storage.commits import last_commit
from fruits.storage.folder import Folder
from tests.hostile.conftest import EXAMPLES, Ended, Fruits, watched
from tests.outputs import stored

JOB: dict[str, object] = {"schema": "fruits.job/2", "command": "fit", "limit": None, "list": {"images": 6}}
texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(sorted(JOB)), inner, max_size=3)
    ),
    max_leaves=10,
)


def checked(out: Path, data: bytes) -> None:
    """Compare the job of a commit with another one."""
    start = b'{"schema":"fruits.commit/2","owner":"0123456789ab","complete":true,"partition_size":1,"base":0,"files":{}'
    content = b'%b,"job":%b}' % (start, data)
    (out / "commits").mkdir(exist_ok=True)
    (out / "commits" / "00000001.json").write_bytes(content)
    folder = Folder(str(out))
    commit = last_commit(folder)
    assert commit is not None
    check_same(folder, commit, JOB, ())


def test_equal_job_is_accepted(tmp_path: Path) -> None:
    checked(tmp_path, orjson.dumps(JOB))


def without_nulls(value: object) -> object:
    """Remove keys of null and of empty objects, which have no meaning."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, item in value.items() if (inner := without_nulls(item)) not in (None, {})}


@EXAMPLES
@given(
    data=st.binary(max_size=40)
    | values.map(orjson.dumps)
    | st.dictionaries(st.sampled_from(sorted(JOB)), values).map(lambda changes: orjson.dumps(JOB | changes))
)
def test_any_other_content_is_another_job_or_corrupt(tmp_path: Path, data: bytes) -> None:
    with suppress(orjson.JSONDecodeError):
        assume(not isinstance(job := orjson.loads(data), dict) or without_nulls(job) != without_nulls(JOB))
    with pytest.raises(OutputError, match=r"contains another job|is corrupt"):
        checked(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"9" * 5_000,
        b"1e999",
        b'{"a":NaN}',
        b'{"limit":1e999}',
        b'"\\ud800"',
        b'{"list":[]}',
        b"{}",
        b"null",
    ],
)
def test_malicious_json_is_rejected(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(OutputError):
        checked(tmp_path, data)


def test_empty_object_differs_from_null(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        checked(tmp_path, orjson.dumps(JOB | {"limit": {}}))


def test_deeply_nested_objects_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        checked(tmp_path, b'{"a":' * 1_020 + b"1" + b"}" * 1_020)


def test_value_of_a_megabyte_is_truncated_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        checked(tmp_path, orjson.dumps(JOB | {"command": "x" * 10**6}))
    assert len(str(caught.value)) < 10_000


def test_fifo_in_place_of_the_file_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    os.mkfifo(tmp_path / "commits" / "00000001.json")
    with watched(tmp_path / "commits" / "00000001.json") as hung, pytest.raises((FruitsError, OSError)):
        last_commit(Folder(str(tmp_path)))
    assert hung == []


# -- complete jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "images"
    generate(folder, images=6, labels=2)
    return folder


@pytest.fixture
def again(fruits: Fruits, images: Path, tmp_path: Path) -> Callable[[], Ended]:
    """Return a function that runs the command of the completed job in ``out`` again."""

    def command() -> Ended:
        return fruits("fit", images, "--out", tmp_path / "out", "--backend", "local", "--components", "2", "--quiet")

    assert command().code == 0
    return command


def test_modified_commit_of_a_completed_job_is_rejected(again: Callable[[], Ended], tmp_path: Path) -> None:
    path = tmp_path / "out" / "commits" / "00000002.json"
    commit = json.loads(path.read_bytes())
    for change in ({"list": None}, {"list": {"digest": 7}}, {"limit": 10**19}, {"images": ["x"]}, {"features": "x"}):
        path.write_bytes(orjson.dumps(commit | {"job": commit["job"] | change}))
        ended = again()
        assert ended.refused, ended.err
        assert "contains another job" in ended.err
    for data in (b"", b"\xff", b"[]", b"\0" * 100):
        path.write_bytes(data)
        ended = again()
        assert ended.refused, ended.err
        assert "is corrupt" in ended.err


def test_modified_report_of_a_completed_job_is_rejected_or_replaced(again: Callable[[], Ended], tmp_path: Path) -> None:
    path = stored(tmp_path / "out", "report.json")
    report: dict[str, Any] = json.loads(path.read_bytes())
    for change in ({"images": "x"}, {"rows": None}, {"seconds": []}, {"rejects": {"a": "b"}}, {"unknown": 1}):
        path.write_bytes(orjson.dumps(report | change))
        ended = again()
        assert ended.code == 0 or ended.refused, ended.err
