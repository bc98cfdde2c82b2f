"""The bootstrap script of a node on a small wheelhouse; make test-stage covers the full one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

import pytest

from backends.aws.emr.livy import PTH
from tests.aws.python_build import python_archive

SCRIPT = Path(__file__).parents[2] / "backends" / "aws" / "emr" / "bootstrap_emr.sh"
# Modules that the script imports as a test; here one wheel contains them all, empty.
MODULES = ["backends", "fruits", "openvino", "pandas", "pyarrow", "s3fs"]
PROGRAM = "def main():\n    print('fruits 0.1.0')\n"


def bootstrap(
    wheelhouse: Path, prefix: Path, python: str = sys.executable, *more: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.defpath, "HOME": str(prefix.parent)} | environ
    command = [str(SCRIPT), str(wheelhouse), str(prefix), python, *more]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=600, check=False)


def wheel(folder: Path, name: str, content: dict[str, str]) -> str:
    """Write a wheel, and return the requirement that pins it."""
    path = folder / f"{name}-1-py3-none-any.whl"
    info = f"{name}-1.dist-info"
    content |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{file},sha256={urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for file, text in content.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (content | {f"{info}/RECORD": record + f"{info}/RECORD,,\n"}).items():
            archive.writestr(file, text)
    return f"{name}==1 --hash=sha256:{sha256(path.read_bytes()).hexdigest()}\n"


def pip_wheel(folder: Path) -> None:
    """Pack the pip of this environment, which the script uses."""
    pip = distribution("pip")
    with zipfile.ZipFile(folder / f"pip-{pip.version}-py3-none-any.whl", "w") as archive:
        for file in pip.files or ():
            if file.parts[0] in ("pip", f"pip-{pip.version}.dist-info") and file.suffix != ".pyc":
                archive.write(file.locate(), file.as_posix())


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    pip_wheel(folder)
    content = {f"{name}/__init__.py": "" for name in MODULES}
    content |= {
        "fruits/cli/__init__.py": "",
        "fruits/cli/main.py": PROGRAM,
        "tiny-1.dist-info/entry_points.txt": "[console_scripts]\nfruits=fruits.cli.main:main\n",
    }
    (folder / "requirements.txt").write_text(wheel(folder, "tiny", content))
    return folder


def test_an_environment_is_built_once(wheelhouse: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    first = bootstrap(wheelhouse, prefix)
    assert first.returncode == 0, first.stdout + first.stderr
    assert [line.partition(" bootstrap: ")[2] for line in first.stdout.splitlines() if "bootstrap" in line][-1] == (
        f"{prefix} is complete"
    )
    program = subprocess.run([prefix / "bin" / "fruits"], capture_output=True, text=True, check=True, env={})
    assert program.stdout == "fruits 0.1.0\n"
    assert "is complete already" in bootstrap(wheelhouse, prefix).stdout

    # Interrupted: the marker is missing, and a leftover exists.
    (prefix / ".complete").unlink()
    (prefix / "leftover").write_text("")
    assert bootstrap(wheelhouse, prefix).returncode == 0
    assert not (prefix / "leftover").exists()


def test_a_wheel_with_another_hash_is_rejected(wheelhouse: Path, tmp_path: Path) -> None:
    pinned = (wheelhouse / "requirements.txt").read_text()
    wheel(wheelhouse, "tiny", {"fruits/__init__.py": "evil = True\n"})
    assert (wheelhouse / "requirements.txt").read_text() == pinned
    done = bootstrap(wheelhouse, tmp_path / "prefix")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "FAILED" in done.stderr
    assert not (tmp_path / "prefix" / ".complete").exists()


def test_a_missing_wheelhouse_or_python_is_an_error(wheelhouse: Path, tmp_path: Path) -> None:
    for folder, python, message in (
        (tmp_path / "nowhere", sys.executable, "FAILED: line"),
        (wheelhouse, "python9.9", "FAILED: python9.9 is not installed on this node"),
    ):
        done = bootstrap(folder, tmp_path / "prefix", python)
        assert done.returncode == 1
        assert message in done.stderr


def test_the_master_node_shuts_down_after_its_minutes(wheelhouse: Path, tmp_path: Path) -> None:
    node, called = tmp_path / "instance.json", tmp_path / "called"
    for name in ("shutdown", "sudo"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$0 $*" >> "{called}"\n')
        program.chmod(0o755)
    environ = {"PATH": f"{program.parent}{os.pathsep}{os.defpath}", "FRUITS_NODE_FILE": str(node)}
    for master, lines in (("false", 0), ("true", 1)):
        node.write_text(f'{{"instanceGroupId": "ig-1", "isMaster": {master}, "isRunningNameNode": {master}}}')
        done = bootstrap(wheelhouse, tmp_path / "prefix", sys.executable, "720", **environ)
        assert done.returncode == 0, done.stderr
        text = called.read_text() if called.exists() else ""
        assert len(text.splitlines()) == lines
    assert "-h +720" in text


@pytest.mark.slow
def test_a_staged_python_is_unpacked_and_verified(wheelhouse: Path, tmp_path: Path) -> None:
    archive = python_archive(tmp_path / "staged")
    digest = archive.with_name(f"{archive.name}.sha256")
    digest.write_text(f"{sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = tmp_path / "prefix"
    done = bootstrap(wheelhouse, prefix, name, "720", str(archive))
    assert done.returncode == 0, done.stdout + done.stderr
    home = subprocess.run(
        [prefix / "bin" / "python", "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert home.stdout.strip() == f"{prefix}-python/python"
    assert "is complete already" in bootstrap(wheelhouse, prefix, name, "720", str(archive)).stdout

    archive.write_bytes(archive.read_bytes() + b"more")
    (prefix / ".complete").unlink()
    done = bootstrap(wheelhouse, prefix, name, "720", str(archive))
    assert done.returncode == 1
    assert "is not the file that was staged" in done.stderr


def test_the_script_has_nothing_that_bash_4_2_lacks() -> None:
    text = "".join(line for line in SCRIPT.read_text().splitlines(True) if not line.startswith("#"))
    assert not re.search(r"inherit_errexit|\$\{[^}]*@[QEPAa]\}|declare -n|local -n|wait -n|mapfile -d", text)


@pytest.mark.parametrize(("livy", "code"), [("3", 0), (None, 1)])
def test_livy_0_7_can_run_a_statement_on_this_python(tmp_path: Path, livy: str | None, code: int) -> None:
    """Livy's own call: an ast.Module without type_ignores, which the wheel allows in its sessions alone."""
    (tmp_path / "fruits_livy.pth").write_text(PTH)
    program = "\n".join(
        [
            f"import site; site.addsitedir({str(tmp_path)!r})",
            "import ast",
            "node = ast.parse('a = 1').body[0]",
            "exec(compile(ast.Module([node]), '<stdin>', 'exec'))",
        ]
    )
    environ = {"PATH": os.defpath, "PYTHONPATH": str(SCRIPT.parents[3])} | (
        {} if livy is None else {"LIVY_SPARK_MAJOR_VERSION": livy}
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ)
    assert done.returncode == (code if sys.version_info < (3, 13) else 0), done.stderr
