"""A correction of Livy 0.7 on Python 3.8 and newer: the kernel PySpark of JupyterHub on emr-6.9.0.

Livy's Python program makes an ``ast.Module`` of each statement without ``type_ignores``, which Python 3.8 to 3.12
require; newer versions of Livy give it. ``fruits_livy.pth`` of the staged wheel calls this in Livy's sessions alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

# A line of a .pth file runs at the start of each Python: https://docs.python.org/3/library/site.html
PTH = (
    'import os; "LIVY_SPARK_MAJOR_VERSION" in os.environ and '
    '__import__("backends.aws.emr.livy", fromlist=["correct_ast"]).correct_ast()\n'
)


class _Module(ast.Module):
    def __init__(self, body: Iterable[ast.stmt] = (), type_ignores: Iterable[ast.TypeIgnore] = ()) -> None:
        super().__init__(list(body), list(type_ignores))


def correct_ast() -> None:
    """Give ``ast.Module`` a default for ``type_ignores`` in this process."""
    ast.Module = _Module  # type: ignore[misc]
