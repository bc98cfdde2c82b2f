from __future__ import annotations

import importlib.util

import pytest

import backends
from fruits.errors import SettingsError
from fruits.executor import Executor


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("name", list(backends.BACKENDS))
def test_every_backend_of_the_table_loads(name: str) -> None:
    executor = backends.load(name)
    assert issubclass(executor, Executor)
    assert executor.name == name


@pytest.mark.parametrize("name", list(backends.CLOUDS))
def test_every_cloud_of_the_table_loads(name: str) -> None:
    assert callable(backends.load_cloud(name))


def test_unknown_names_are_rejected_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"^Unknown backend 'ray'\. Allowed: dask, spark, local\.$"):
        backends.load("ray")
    with pytest.raises(SettingsError, match=r"^Unknown cloud 'azure'\. Allowed: emr, "):
        backends.load_cloud("azure")


@pytest.mark.usefixtures("nothing_installed")
def test_missing_package_is_named_with_its_extra_and_the_installed_backends() -> None:
    with pytest.raises(
        SettingsError,
        match=r"^Backend 'spark': pyspark is not installed\. Install it with: pip install 'fruits\[spark\]', "
        r"or choose an installed backend: local\.$",
    ):
        backends.load("spark")
    with pytest.raises(
        SettingsError, match=r"^Cloud 'emr': boto3 is not installed\. Install it with: pip install 'fruits\[aws\]'\.$"
    ):
        backends.load_cloud("emr")
    assert backends.load("local").name == "local"


def test_dask_without_the_package_of_its_certificates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cryptography" else found(name))
    with pytest.raises(SettingsError, match=r"cryptography is not installed\. .* pip install 'fruits\[dask\]'"):
        backends.load("dask")
