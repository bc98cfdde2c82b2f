"""cluster.yaml, which is read from the current folder: any content gives settings or a clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fruits.clusters.cluster_file import ClusterFile
from fruits.clusters.load import load
from fruits.clusters.resolve import resolve
from fruits.errors import SettingsError
from tests.hostile.conftest import EXAMPLES, watched
from tests.hostile.measure import ROOT

SHIPPED = (ROOT / "cluster.yaml").read_text()


def loaded(folder: Path, text: str | bytes) -> ClusterFile | str:
    """Return the settings or the message of the SettingsError; any other exception is a failure."""
    path = folder / "cluster.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        return load(str(path), environ={})
    except SettingsError as error:
        message = str(error)
    assert "cluster.yaml" in message
    return message


def entry(body: str) -> str:
    return f"clusters:\n  mine: {{backend: dask, {body}}}\n"


# -- tags


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.mkdir ["ran"]',
        '!!python/object/new:os.mkdir ["ran"]',
        "!!python/name:os.mkdir",
        "!!python/module:os",
        "!!python/object:pathlib.Path {}",
        "!!python/tuple [1]",
        '!<tag:yaml.org,2002:python/object/apply:os.mkdir> ["ran"]',
        "!include /etc/passwd",
        "!ENV ${HOME}",
    ],
)
@pytest.mark.parametrize("place", ["default: {}", "clusters: {}", "clusters:\n  mine: {}", "{}", "? {}\n: 1"])
def test_tags_create_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    message = loaded(tmp_path, place.format(tag))
    assert isinstance(message, str)
    assert "could not determine a constructor for the tag" in message
    assert not Path("ran").exists()


def test_a_long_value_is_rejected(tmp_path: Path) -> None:
    assert isinstance(loaded(tmp_path, entry(f"workers: {'x' * 1000}")), str)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "clusters: &a {x: *a}",
        "clusters: &a {<<: *a}",
        "&a [*a]",
        "clusters: {mine: &a {backend: spark, conf: *a}}",
    ],
)
def test_a_recursive_value_is_rejected(tmp_path: Path, text: str) -> None:
    assert isinstance(loaded(tmp_path, text), str) or text.endswith("{<<: *a}")


# -- values that YAML cannot construct


@pytest.mark.parametrize(
    "value",
    [
        "2001-99-99",
        "2001-01-01 25:61:61",
        f"{'9' * 5_000}",
        "!!int abc",
        "!!int ''",
        "!!float abc",
        "!!bool maybe",
        "!!timestamp abc",
    ],
)
def test_a_value_that_does_not_match_its_tag_is_rejected(tmp_path: Path, value: str) -> None:
    assert isinstance(loaded(tmp_path, entry(f"workers: {value}")), str)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00d",
        b"\x00",
        b"default: \x07",
        b"\xef\xbb\xbfdefault: [",
        b"%YAML 9.9\n---\ndefault: local",
        b"--- a\n--- b\n",
        b"? [1]\n: 2",
        b"? {1: 2}\n: 2",
        b"!!set {a, b}",
        b"!!binary '?'",
        b"!!omap [a]",
        b"&a &b x",
        b"*nobody",
        b"\t",
        b"default: local\ndefault: local",
        b"clusters: {mine: {backend: dask, workers: .inf}}",
        b"clusters: {mine: {backend: dask, workers: 1e999}}",
        b"clusters: {mine: {backend: spark, conf: {a: [1]}}}",
        b"clusters: {mine: {backend: [dask]}}",
        b"clusters: {mine: {backend: dask, address: ''}}",
    ],
)
def test_text_that_is_not_a_cluster_file_is_rejected(tmp_path: Path, text: bytes) -> None:
    assert isinstance(loaded(tmp_path, text), str)


@pytest.mark.parametrize("name", ["1", "null", "1.5", "2001-01-01", "true"])
def test_a_name_that_is_not_text_is_rejected(tmp_path: Path, name: str) -> None:
    assert isinstance(loaded(tmp_path, f"clusters: {{{name}: {{backend: dask}}}}"), str)


keys = st.sampled_from(
    [
        "default",
        "clusters",
        "mine",
        "backend",
        "workers",
        "address",
        "conf",
        "cloud",
        "region",
        "bucket",
        "tags",
        "worker_types",
        "public",
        "client",
        "spot",
        "image",
        "x",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["dask", "spark", "local", "emr", "dask-ec2", "s3://b", "", "a\nb"])
    | st.text(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
kinds = st.sampled_from(["dask", "spark", "local"])
entries = st.dictionaries(keys, values, max_size=4).flatmap(
    lambda entry: kinds.map(lambda kind: entry | {"backend": kind}) | st.just(entry)
)


@EXAMPLES
@given(content=values | st.fixed_dictionaries({"clusters": st.dictionaries(keys, entries, max_size=3)}))
def test_any_content_gives_settings_or_a_message(tmp_path: Path, content: object) -> None:
    loaded(tmp_path, yaml.safe_dump(content))


@EXAMPLES
@given(text=st.text(alphabet="{}[]:,-?&*!|>%@#'\"\\ \n\tab01.<~", max_size=60))
def test_any_punctuation_gives_settings_or_a_message(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, text)


@EXAMPLES
@given(data=st.data())
def test_the_shipped_file_with_changed_characters_gives_settings_or_a_message(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = SHIPPED[SHIPPED.index("\ndefault:") :]
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start, min(start + 20, len(content))))
    loaded(tmp_path, content[:start] + data.draw(st.text(alphabet="{}[]:- \nab1&*", max_size=4)) + content[stop:])


# -- the file itself


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cluster.yaml")
    with watched(tmp_path / "cluster.yaml") as hung, pytest.raises(SettingsError):
        load(str(tmp_path / "cluster.yaml"), environ={})
    assert hung == []


@pytest.mark.parametrize("count", [10**6, 10**30])
def test_more_workers_than_any_machine_supports_are_rejected(count: int) -> None:
    """Dask would start one process per worker."""
    with pytest.raises(SettingsError, match="--workers"):
        resolve(backend="dask", workers=count, environ={})
