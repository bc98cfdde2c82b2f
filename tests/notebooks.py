"""Notebooks that tests run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 500  # for a cell


def execute(notebook: Any, folder: Path, **environ: str) -> None:
    """Run all cells in a new kernel, in a folder; nbclient adds the outputs to them.

    The kernel listens on Unix sockets: Jupyter looks for free ports before the kernel starts, and another process may
    take one of them until then.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="fruits-", dir="/tmp") as short:  # a socket's path has at most 107 bytes
        config = Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{short}/kernel"})
        client = NotebookClient(notebook, config=config, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
        client.execute(env=os.environ | {"TMPDIR": short, "IPYTHONDIR": short} | environ)
