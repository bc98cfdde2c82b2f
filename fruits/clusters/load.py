"""Read ``cluster.yaml`` and validate it against its models."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

import yaml
from pydantic import ValidationError

from fruits.clusters.cluster_file import BUILT_IN, FILE_NAME, ClusterFile
from fruits.clusters.messages import describe
from fruits.clusters.strict_yaml import line_of, parse
from fruits.errors import SettingsError
from fruits.text import native

LARGEST = 2**16  # bytes of a file; the project's own has 6,000
SHOWN = 10  # problems of a file that one message lists


def load(file: str | None = None, *, environ: Mapping[str, str] = os.environ) -> ClusterFile:
    """Return the built-in clusters, updated with those of the file.

    The file is `file`, or else ``FRUITS_CLUSTER_FILE``, or else ``./cluster.yaml`` if it exists.

    Raises
    ------
    SettingsError
        A file that was named does not exist, or the file is not valid; the message names the file and the line.
    """
    variable = environ.get("FRUITS_CLUSTER_FILE")
    named = native(file) if file else variable
    path = named or FILE_NAME
    if not named and not os.path.exists(path):
        return BUILT_IN
    try:
        text = _read(path).decode("utf-8")
    except Exception as error:  # every fsspec file system raises its own classes
        source = "--cluster-file" if file else "FRUITS_CLUSTER_FILE" if variable else "The file"
        raise SettingsError(
            f"{source} {path} cannot be read: {_reason(error)}. Give the path or the address of a cluster.yaml, or "
            "omit it to use the built-in clusters."
        ) from error
    added = _validated(path, text)
    return ClusterFile(default=added.default, clusters={**BUILT_IN.clusters, **added.clusters})


def _read(address: str) -> bytes:
    """Return the bytes of a file, from a local path or an address such as ``s3://…``."""
    if "://" in address:
        from fruits.storage.addresses import open_store  # imports fsspec, which local files do not need

        store, path = open_store(address)
        content = store.read(path)
    else:
        if os.path.exists(address) and not os.path.isfile(address) and not os.path.isdir(address):
            raise ValueError("it is a pipe or a device")  # opening it could block forever
        with open(address, "rb") as file:
            content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, FileNotFoundError):
        return os.strerror(error.errno or errno.ENOENT)
    return getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__


def _validated(path: str, text: str) -> ClusterFile:
    try:
        content, root = parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        raise SettingsError(f"{path}{where}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid YAML: {error}.") from error
    try:
        return ClusterFile.model_validate({} if content is None else content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [f"{path}, line {line_of(root, problem['loc'])}: {describe(problem)}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"{path}: {len(problems) - SHOWN} more problems.")
        raise SettingsError("\n".join(lines)) from error
