"""The cluster file: its keys and errors, and the precedence of the sources."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends import BACKENDS, CLOUDS
from fruits.clusters import cluster_file
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.cluster import Cluster
from fruits.clusters.cluster_file import BUILT_IN
from fruits.clusters.load import load
from fruits.clusters.reference import key_reference
from fruits.clusters.resolve import THIS_MACHINE, resolve
from fruits.errors import SettingsError

SHIPPED = Path(__file__).parents[3] / "cluster.yaml"


@pytest.fixture(autouse=True)
def _empty_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: Path, text: str, name: str = "cluster.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def named(cluster: str) -> Cluster:
    return resolve(cluster=cluster, environ={})


def error_of(file: str | None = None, **settings: object) -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(file=file, environ={}, **settings)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_shipped_file_equals_the_built_in_clusters() -> None:
    assert load(str(SHIPPED), environ={}) == BUILT_IN
    for name in BUILT_IN.clusters:
        assert f"\n  {name}:\n" in SHIPPED.read_text()


def test_the_key_reference_of_the_shipped_file_is_generated_from_the_models() -> None:
    assert f"\n{key_reference()}\n\ndefault:" in SHIPPED.read_text(), "run: python -m fruits.clusters.reference"


def test_every_key_is_described() -> None:
    for model in (*cluster_file.BACKENDS.values(), *cluster_file.CLOUDS.values()):
        described = {name for name, field in model.model_fields.items() if field.description}
        assert described == set(model.model_fields) - {"backend", "cloud"}


def test_every_backend_has_a_cluster_on_this_machine() -> None:
    assert set(cluster_file.BACKENDS) == set(THIS_MACHINE) == set(BACKENDS)
    for backend in BACKENDS:
        found = resolve(backend=backend, environ={})
        assert (found.backend, found.address) == (backend, None)


def test_every_cloud_has_a_cluster_and_a_job_runner() -> None:
    assert set(cluster_file.CLOUDS) == set(CLOUDS) == {c.cloud.cloud for c in map(named, BUILT_IN.clusters) if c.cloud}


def test_the_default_is_dask_on_every_available_core() -> None:
    assert resolve(environ={}) == Cluster("local-dask", "dask", len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({}, {}, "from-file"),
        ({}, {"FRUITS_BACKEND": "spark"}, "local-spark"),
        ({}, {"FRUITS_CLUSTER": "local-spark"}, "local-spark"),
        ({}, {"FRUITS_CLUSTER": "local-spark", "FRUITS_BACKEND": "spark"}, "local-spark"),
        ({}, {"FRUITS_CLUSTER": ""}, "from-file"),
        ({"backend": "local"}, {"FRUITS_BACKEND": "spark"}, "local"),
        ({"backend": "local"}, {"FRUITS_CLUSTER": "local-spark"}, "local"),
        ({"cluster": "local-dask"}, {"FRUITS_CLUSTER": "local-spark"}, "local-dask"),
        ({"cluster": "local-dask"}, {"FRUITS_BACKEND": "spark"}, "local-dask"),
        ({"cluster": "local-dask", "backend": "dask"}, {"FRUITS_BACKEND": "spark"}, "local-dask"),
    ],
)
def test_cluster_precedence_is_command_line_environment_file(
    tmp_path: Path, options: dict[str, str], environ: dict[str, str], expected: str
) -> None:
    write(tmp_path, "default: from-file\nclusters:\n  from-file:\n    backend: spark\n")
    assert resolve(environ=environ, **options).name == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "environ", "expected"),
    [(5, {"FRUITS_WORKERS": "4"}, 5), (None, {"FRUITS_WORKERS": "4"}, 4), (None, {}, 3)],
)
def test_workers_precedence_is_command_line_environment_file(
    tmp_path: Path, workers: int | None, environ: dict[str, str], expected: int
) -> None:
    write(tmp_path, "clusters:\n  local-dask:\n    backend: dask\n    workers: 3\n")
    assert resolve(workers=workers, environ=environ).workers == expected


def test_file_precedence_is_option_environment_current_folder(tmp_path: Path) -> None:
    text = "default: {0}\nclusters:\n  {0}:\n    backend: dask\n"
    write(tmp_path, text.format("in-the-folder"))
    named = write(tmp_path, text.format("named"), "named.yaml")
    environ = {"FRUITS_CLUSTER_FILE": write(tmp_path, text.format("from-the-environment"), "environment.yaml")}
    assert resolve(file=named, environ=environ).name == "named"
    assert resolve(environ=environ).name == "from-the-environment"
    assert resolve(environ={}).name == "in-the-folder"


def test_a_file_adds_clusters_and_replaces_those_of_the_same_name(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "clusters:\n  dask-address: {backend: dask, address: 'tcp://10.0.0.1:8786'}\n"
        "  lab: {backend: local, workers: 7}\n",
    )
    assert resolve(cluster="dask-address", file=file, environ={}).address == "tcp://10.0.0.1:8786"
    assert resolve(cluster="lab", file=file, environ={}).workers == 7
    assert set(load(file, environ={}).clusters) == {*BUILT_IN.clusters, "lab"}


def test_an_empty_file_leaves_the_built_in_clusters(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing yet\n"), environ={}) == BUILT_IN


def test_workers_are_rejected_with_an_address() -> None:
    found = resolve(cluster="spark-address", environ={"FRUITS_WORKERS": "4"})
    assert (found.workers, found.address) == (None, "spark://127.0.0.1:7077")
    assert "--workers 2 cannot be combined with the cluster spark-address, which is running at" in error_of(
        cluster="spark-address", workers=2
    )


def test_spark_properties_reach_the_cluster(tmp_path: Path) -> None:
    file = write(tmp_path, "clusters:\n  big:\n    backend: spark\n    conf: {spark.executor.memory: 8g}\n")
    assert resolve(cluster="big", file=file, environ={}).conf == {"spark.executor.memory": "8g"}


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("8787", "127.0.0.1:8787"),
        ("0", "127.0.0.1:0"),
        ("localhost:4040", "localhost:4040"),
        ("0.0.0.0:8787", "0.0.0.0:8787"),
    ],
)
@pytest.mark.parametrize("backend", ["dask", "spark"])
def test_a_dashboard_without_a_host_is_on_loopback(tmp_path: Path, backend: str, value: str, address: str) -> None:
    file = write(tmp_path, f"clusters:\n  seen: {{backend: {backend}, dashboard: {value}}}\n")
    assert resolve(cluster="seen", file=file, environ={}).dashboard == address
    assert resolve(cluster=f"local-{backend}", file=file, environ={}).dashboard is None


@pytest.mark.parametrize("entry", ["workers: 1, address: b, conf: {key: S3CR3T}", "conf: {key: [S3CR3T]}"])
def test_messages_do_not_repeat_possible_secrets(tmp_path: Path, entry: str) -> None:
    message = error_of(write(tmp_path, f"clusters:\n  a: {{backend: spark, {entry}}}\n"))
    assert "clusters.a" in message
    assert "S3CR3T" not in message


def test_unknown_names_are_rejected_with_the_allowed_ones() -> None:
    assert error_of(cluster="nowhere") == (
        "--cluster nowhere: no such cluster. Allowed: "
        "local-dask, local-spark, local, dask-address, spark-address, spark-yarn, emr, emr-notebook, "
        "emr-seed, emr-serverless, dask-ec2."
    )
    assert error_of(backend="ray") == "--backend ray: no such backend. Allowed: dask, spark, local."
    with pytest.raises(SettingsError, match="FRUITS_BACKEND ray: no such backend"):
        resolve(environ={"FRUITS_BACKEND": "ray"})


def test_a_backend_that_does_not_match_the_cluster_is_rejected() -> None:
    assert error_of(cluster="local-spark", backend="dask") == (
        "The backend dask cannot be combined with the cluster local-spark, whose backend is spark. "
        "Omit one of them, or choose a cluster with the backend dask: local-dask, dask-address, dask-ec2."
    )
    with pytest.raises(SettingsError, match="cannot be combined with the cluster local, whose backend is local"):
        resolve(environ={"FRUITS_CLUSTER": "local", "FRUITS_BACKEND": "dask"})


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " "])
def test_a_number_of_workers_that_is_not_a_count_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError, match=r"FRUITS_WORKERS .*: not a count of workers\. Allowed: a whole number"):
        resolve(environ={"FRUITS_WORKERS": text})


def test_zero_workers_are_rejected() -> None:
    assert error_of(workers=0) == "--workers 0: not a count of workers. Allowed: a whole number, 1 to 2,048."


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("defautl: local\n", 1, "defautl: unknown key. Allowed: default, clusters."),
        (
            "clusters:\n  local:\n    backend: local\n    address: x\n",
            4,
            "clusters.local.address: unknown key. Allowed: backend, workers.",
        ),
        (
            "clusters:\n  a:\n    backend: dask\n  dask:\n    backend: dask\n    conf: {}\n",
            6,
            "clusters.dask.conf: unknown key. Allowed: backend, workers, address, dashboard.",
        ),
        (
            "clusters:\n  a:\n    backend: ray\n",
            2,
            "clusters.a: backend: ray: not known. Allowed: backend: dask, backend: spark",
        ),
        ("clusters:\n  a:\n    workers: 2\n", 2, "clusters.a: needs a backend."),
        (
            "clusters:\n  a:\n    backend: dask\n    workers: 0\n",
            4,
            "clusters.a.workers: input should be greater than 0",
        ),
        ("clusters:\n  a:\n    backend: dask\n    workers: yes\n", 4, "Given: True."),
        (
            "clusters:\n  a: {backend: dask, workers: 1, address: b}\n",
            2,
            "workers cannot be combined with address. Remove one of them.",
        ),
        (
            "clusters:\n  a: {backend: spark, dashboard: 4040, address: b}\n",
            2,
            "dashboard cannot be combined with address. Remove one of them.",
        ),
        *(
            (
                f"clusters:\n  a:\n    backend: dask\n    dashboard: {text}\n",
                4,
                "Allowed: a port, such as 8787, or host:port",
            )
            for text in ("yes", "localhost", "'a b:1'", "'x:65536'", "-1", "1.5", "[8787]", "'http://h:8787'", "''")
        ),
        (
            "clusters:\n  a:\n    backend: spark\n    conf:\n      x: 4\n",
            5,
            "clusters.a.conf.x: input should be a valid string",
        ),
        ("\n\nclusters: 3\n", 3, "clusters: input should be a valid dictionary"),
        ("- a\n", 1, "the file: input should be"),
        (
            "clusters:\n  a:\n    backend: dask\n  a:\n    backend: spark\n",
            4,
            "duplicate key a, first in line 2",
        ),
        ("clusters: {a: {backend: dask, backend: spark}}\n", 1, "duplicate key backend, first in line 1"),
        ("clusters:\n  a: [\n", 3, "expected the node content"),
        ("clusters:\n  a: !!python/object:os.system {}\n", 2, "could not determine a constructor"),
    ],
)
def test_an_error_in_a_file_names_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = write(tmp_path, text)
    error = error_of(file)
    assert error.startswith(f"{file}, line {line}: ")
    assert message in error


def test_all_errors_of_a_file_are_reported_together(tmp_path: Path) -> None:
    file = write(tmp_path, "one: 1\ntwo: 2\n")
    assert [line.split(":")[0] for line in error_of(file).splitlines()] == [f"{file}, line 1", f"{file}, line 2"]


def test_the_entry_of_a_cloud_cluster_sets_its_size(tmp_path: Path) -> None:
    file = write(tmp_path, "clusters:\n  big: {backend: spark, cloud: emr, region: eu-west-3, task_nodes: 40}\n")
    found = resolve(cluster="big", file=file, environ={"FRUITS_WORKERS": "4"})
    assert (found.backend, found.workers, found.address) == ("spark", None, None)
    assert isinstance(found.cloud, EmrCluster)
    assert (found.cloud.task_nodes, found.cloud.region, found.cloud.spot) == (40, "eu-west-3", True)
    assert "--workers 2 cannot be combined with the cluster big: its entry" in error_of(file, cluster="big", workers=2)
    assert "cannot be combined with the cluster big, whose backend is spark" in error_of(
        file, cluster="big", backend="dask"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{backend: dask, cloud: emr}", "clusters.a.backend: input should be 'spark'. Given: 'dask'."),
        ("{backend: spark, cloud: moon}", "Allowed: backend: dask, backend: spark, backend: local, cloud: emr"),
        (
            "{backend: spark, cloud: emr, workers: 3}",
            "a.workers: unknown key. Allowed: backend, cloud, region, bucket",
        ),
        (
            "{backend: spark, cloud: emr, region: Paris}",
            "clusters.a.region: wrong format. Example: eu-west-3. Given: 'Paris'.",
        ),
        (
            "{backend: spark, cloud: emr, bucket: my-fruits}",
            "clusters.a.bucket: wrong format. Example: s3://my-fruits.",
        ),
        ("{backend: spark, cloud: emr, worker_types: []}", "clusters.a.worker_types: list should have at least 1"),
        ("{backend: spark, cloud: emr, worker_types: [c7i]}", "a.worker_types.0: wrong format. Example: c7i.2xlarge."),
        ("{backend: spark, cloud: emr, idle_minutes: 0}", "clusters.a.idle_minutes: input should be greater"),
    ],
)
def test_errors_in_a_cloud_cluster_are_described(tmp_path: Path, entry: str, message: str) -> None:
    assert message in error_of(write(tmp_path, f"clusters:\n  a: {entry}\n"))


def test_an_unknown_default_is_rejected(tmp_path: Path) -> None:
    assert "default: nowhere: no such cluster. Allowed: local-dask" in error_of(write(tmp_path, "default: nowhere\n"))


def test_an_unreadable_file_is_rejected(tmp_path: Path) -> None:
    assert "--cluster-file nowhere.yaml cannot be read: No such file" in error_of("nowhere.yaml")
    with pytest.raises(SettingsError, match=r"FRUITS_CLUSTER_FILE nowhere\.yaml cannot be read"):
        resolve(environ={"FRUITS_CLUSTER_FILE": "nowhere.yaml"})
    (tmp_path / "latin.yaml").write_bytes(b"default: \xe9\n")
    assert "not UTF-8" in error_of("latin.yaml")


def test_binary_content_is_rejected(tmp_path: Path) -> None:
    assert "not valid YAML" in error_of(write(tmp_path, "a: \x00\n"))
