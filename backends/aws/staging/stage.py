"""Upload the files that nodes need to the bucket: ``fruits cluster stage``.

The files are the wheelhouse, the scripts, the weights of networks that are not packaged with Fruits, and, for releases
without a usable Python, a build of it. Nodes need no package index and no internet access.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from backends.aws.account.clients import Account, Notify, split_address, translated_errors
from backends.aws.account.preflight import check_quotas
from backends.aws.account.stack import find_installed
from backends.aws.emr.releases import Release, release_of
from backends.aws.staging.staged_files import StagedFiles
from backends.aws.staging.wheelhouse import build_environment, digest_of, gather, package_files
from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.errors import JobError, SettingsError
from fruits.network.backbones import backbone
from fruits.network.packaged import PACKAGED
from fruits.network.weights import find_weights

EMR = files("backends.aws.emr")
NOTEBOOK = "feature_extraction.ipynb"
# The folder for the notebooks of JupyterHub's first user on EMR:
# https://docs.aws.amazon.com/emr/latest/ReleaseGuide/emr-jupyterhub-s3.html
NOTEBOOKS = "jupyter/jovyan"


@dataclass(frozen=True, slots=True)
class PythonArchive:
    """A build of Python that the user names: a ``.tar.gz`` with ``python/bin/python3.11`` in it, and its SHA-256."""

    path: Path
    digest: str

    def check(self) -> None:
        """Compare the file with the digest.

        Raises
        ------
        SettingsError
            The file is missing, or has another digest.
        """
        try:
            found = digest_of(self.path)
        except OSError as error:
            raise SettingsError(f"--python-archive {self.path}: {error.strerror}.") from error
        if found != self.digest.lower():
            raise SettingsError(
                f"--python-archive {self.path}: its SHA-256 is {found}, not --sha256 {self.digest}. Download it again, "
                "and take the digest from its publisher."
            )


def stage(
    account: Account,
    bucket: str,
    release: Release,
    *,
    backbones: Sequence[str] = (),
    python: PythonArchive | None = None,
    notify: Notify = lambda message: None,
) -> StagedFiles:
    """Upload the files that the nodes of a cluster need, and return their addresses.

    Files with the same hash in the bucket are not uploaded again.

    Parameters
    ----------
    account : Account
    bucket : str
        Without ``s3://``.
    release : Release
        From :func:`~backends.aws.emr.releases.release_of`: selects the wheels by its Python and glibc.
    backbones : sequence of str
        The networks that the nodes build. Weights are uploaded except for `PACKAGED`, which is part of the wheel.
    python : PythonArchive, optional
        Default: the archive that was staged before.
    notify : callable
        Receives progress messages.

    Raises
    ------
    SettingsError
        A package has no wheel for the cluster, or the release needs an archive of Python.
    """
    staged = StagedFiles.for_release(bucket, release)
    before = _manifest(account, staged)
    with tempfile.TemporaryDirectory(prefix="fruits-stage-") as temporary:
        folder = Path(temporary)
        if release.needs_python:
            _place_python(account, staged, python, before, folder)
        notify(f"gathering wheels for Python {release.python} and glibc {'.'.join(map(str, release.glibc))}")
        gather(folder / "wheelhouse", release)
        if release.unpacks_environment:
            notify("building the environment")
            build_environment(
                folder / "python.tar.gz", folder / "wheelhouse", release, folder / Path(staged.environment).name
            )
        for name in ("bootstrap_emr.sh", "emr_step.py"):
            (folder / name).write_bytes((EMR / name).read_bytes())
        digests = {}
        (folder / "weights").mkdir()
        for name in sorted(_unpackaged(backbones)):
            weights = find_weights(backbone(name))
            shutil.copy(weights.path, folder / "weights" / f"{name}.safetensors")
            digests[name] = weights.digest
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            "version": version("fruits"),
            "sources": _sources(),
            "weights": digests,
            "files": {path.relative_to(folder).as_posix(): digest_of(path) for path in paths},
        }
        _upload(account, folder, staged, manifest, before.get("files", {}), notify)
    return staged


def is_staged(account: Account, bucket: str, release: Release, backbones: Sequence[str] = ()) -> bool:
    """Return whether files are staged that were built from the installed sources, with these weights."""
    staged = StagedFiles.for_release(bucket, release)
    manifest = _manifest(account, staged)
    complete = not release.unpacks_environment or Path(staged.environment).name in manifest.get("files", {})
    weights = _unpackaged(backbones) <= set(manifest.get("weights", {}))
    return complete and weights and manifest.get("sources") == _sources()


def ensure_staged(
    account: Account, settings: CloudCluster, bucket: str, *, backbone: str = PACKAGED, notify: Notify
) -> StagedFiles:
    """Return the staged files for the nodes of a cluster; stage them if they are missing or outdated."""
    contents = release_of(settings)
    if is_staged(account, bucket, contents, (backbone,)):
        return StagedFiles.for_release(bucket, contents)
    find_installed(account)  # fails before 250 MB are gathered and uploaded
    if isinstance(settings, EmrCluster):
        check_quotas(account, settings, notify)
    return stage(account, bucket, contents, backbones=(backbone,), notify=notify)


def offer_notebook(account: Account, bucket: str) -> str:
    """Upload the notebook to JupyterHub's folder unless it exists there, and return its address."""
    s3 = account.client("s3")
    key = f"{NOTEBOOKS}/{NOTEBOOK}"
    with translated_errors(f"upload the notebook to s3://{bucket}"):
        if not s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"]:
            s3.put_object(Bucket=bucket, Key=key, Body=(EMR / NOTEBOOK).read_bytes())
    return f"s3://{bucket}/{key}"


def _unpackaged(backbones: Sequence[str]) -> set[str]:
    return set(backbones) - {PACKAGED}


def _place_python(
    account: Account, staged: StagedFiles, python: PythonArchive | None, before: dict[str, Any], folder: Path
) -> None:
    """Write the archive, and its digest, from the file that the user names or from the bucket."""
    name = Path(staged.python_archive).name
    if python is None:
        digest = before.get("files", {}).get(name)
        if digest is None:
            raise SettingsError(
                "The nodes need a build of Python 3.11 that runs on their glibc. Download a standalone build "
                "(docs/aws.md), and stage it once: fruits cluster stage --cluster NAME --python-archive FILE "
                "--sha256 DIGEST."
            )
        bucket, key = split_address(staged.python_archive)
        python = PythonArchive(folder / name, digest)
        with translated_errors(f"fetch {staged.python_archive}"):
            account.client("s3").download_file(bucket, key, str(python.path))
        python.check()
    else:
        python.check()
        shutil.copy(python.path, folder / name)
    (folder / f"{name}.sha256").write_text(f"{python.digest.lower()}  {name}\n", encoding="ascii")


def _upload(
    account: Account,
    folder: Path,
    staged: StagedFiles,
    manifest: dict[str, Any],
    stored: dict[str, str],
    notify: Notify,
) -> None:
    s3 = account.client("s3")
    bucket, root = split_address(staged.root)
    manifest_key = split_address(staged.manifest)[1]
    changed = [name for name, digest in manifest["files"].items() if stored.get(name) != digest]
    size = sum((folder / name).stat().st_size for name in changed)
    notify(f"uploading {len(changed)} of {len(manifest['files'])} files, {size / 1e6:,.0f} MB, to {staged.root}")
    with translated_errors(f"upload to {staged.root}"):
        # The manifest marks a complete set of files: delete it first, write it last.
        s3.delete_object(Bucket=bucket, Key=manifest_key)
        for name in changed:
            s3.upload_file(str(folder / name), bucket, f"{root}/{name}")
        for name in set(stored) - set(manifest["files"]):
            s3.delete_object(Bucket=bucket, Key=f"{root}/{name}")
        s3.put_object(Bucket=bucket, Key=manifest_key, Body=json.dumps(manifest, indent=2).encode())


def _manifest(account: Account, staged: StagedFiles) -> dict[str, Any]:
    content = account.read(staged.manifest)
    if content is None:
        return {}
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise JobError(f"{staged.manifest} is corrupt: {error}. Delete it, and run: fruits cluster stage.") from error
    return manifest if isinstance(manifest, dict) else {}


def _sources() -> str:
    """Return one digest of all files of the wheel."""
    total = sha256()
    for name, path in package_files():
        total.update(f"{name}\0{digest_of(path)}\n".encode())
    return total.hexdigest()
