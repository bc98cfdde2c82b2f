"""A module of Livy 0.7 on Python 3.8 and newer: the kernel PySpark of JupyterHub on emr-6.9.0.

Livy's Python program makes an ``ast.Module`` of each statement without ``type_ignores``, which Python 3.8 to 3.12
require; newer versions of Livy give it. ``fruits_livy.pth`` of the wheel imports this module in Livy's sessions alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

__all__: list[str] = []


class _Module(ast.Module):
    def __init__(self, body: Iterable[ast.stmt] = (), type_ignores: Iterable[ast.TypeIgnore] = ()) -> None:
        super().__init__(list(body), list(type_ignores))


ast.Module = _Module  # type: ignore[misc]
