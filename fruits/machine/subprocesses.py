"""Python subprocesses that do not import from the current folder.

``python -m`` and ``python -c`` put the current folder, such as the folder of the images, first on the import path: a
``json.py`` there would be executed.
"""

from __future__ import annotations

import os
import sys


def import_folders() -> list[str]:
    """Return the folders that this process imports from, without the current folder that Python itself added."""
    folders = [os.path.abspath(entry) for entry in sys.path if entry]
    main = sys.modules.get("__main__")
    if (
        getattr(main, "__spec__", None) is not None  # started by `python -m`
        and not getattr(sys.flags, "safe_path", False)  # new in Python 3.11; Spark workers may run 3.10
        and folders[:1] == [os.getcwd()]
    ):
        return folders[1:]
    return folders


def python_environment() -> dict[str, str]:
    """Return the environment of a Python subprocess that imports from :func:`import_folders`."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(import_folders()), "PYTHONSAFEPATH": "1"}
