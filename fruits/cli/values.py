"""Conversion and checks of option values."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import fields
from importlib.util import find_spec

import typer

from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.recogniser.jobs.request import Training

OPTIONS = {field.name for field in fields(Job)} | {field.name for field in fields(Training)} - {"sources"}
OPTIONS |= set("backend cluster host left_out port s3_endpoint shard_size token_file tsne workers".split())


def name_options(message: str) -> str:
    """Return a message of the library with parameters shown as options: `` `out` = x: …`` becomes ``--out x: …``."""
    return re.sub(r"`(\w+)`( = )?", _option, message)


def _option(match: re.Match[str]) -> str:
    name, equals = match[1], match[2]
    if name not in OPTIONS:
        return match[0]
    return ("IMAGES" if name == "images" else f"--{name.replace('_', '-')}") + (" " if equals else "")


def check_current_folder() -> None:
    """Raise an error if the current folder was removed: Python and Java do not start in it, and paths lead nowhere."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise SettingsError("the current folder was removed. Change to another one, with cd.") from error


def check_address(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Reject an empty path, which would mean the current folder, and one in the memory of this process."""
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
    if value == "":
        kind, allowed = ("", "a value") if parameter.metavar in ("NAME", "REGEX") else (" path", "a path or a URL")
        raise SettingsError(f"{name}: empty{kind} (unset shell variable?). Give {allowed}.")
    if value is not None and value.startswith("memory://"):
        raise SettingsError(
            f"{name} {value}: not allowed, because this memory is lost when the command ends. Give a path, or the URL "
            "of a store."
        )
    return value


def local_path(folder: str) -> str:
    """Return a folder of this machine; a URL is an error."""
    if "://" in folder:
        raise SettingsError(f"{folder}: sample images are generated on this machine. Give a local folder.")
    return folder


def parse_components(text: str) -> int | float:
    """Return ``--components`` as a count if it is an integer, else as a fraction of variance."""
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    raise SettingsError(
        f"--components {text}: not a number. "
        "Allowed: a count of at least 1, such as 200, or a fraction of variance above 0 and up to 1, such as 0.95."
    )


def parse_weights(text: str) -> tuple[int, ...]:
    """Return ``--weights`` of a training as a tuple of integers."""
    try:
        return tuple(int(weight) for weight in text.split(","))
    except ValueError:
        raise SettingsError(
            f"--weights {text}: not allowed. Allowed: a whole number for each SOURCE, as 1,5."
        ) from None


def parse_size(text: str) -> int:
    """Return ``--shard-size`` as a number of bytes: ``256MB``, ``1.5GB``, ``512MiB`` or ``1000000``."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) ?([kMGT]i?)?B?", text)
    if match is None:
        raise SettingsError(
            f"--shard-size {text}: not a size. Allowed: a number of bytes, such as 256MB, 1GB or 512MiB."
        )
    unit = match[2] or ""
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** " kMGT".index(unit[:1] or " "))


def parse_columns(text: str) -> tuple[str, ...]:
    """Return ``--columns`` as a tuple of names."""
    return tuple(name.strip() for name in text.split(","))


def require_extra(extra: str, *packages: str) -> None:
    """Raise an error with the command that installs an extra, unless its packages are installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise SettingsError(f"{', '.join(missing)}: not installed. Install with: pip install 'fruits[{extra}]'")
