"""The kinds of sources, and the one place that selects the kind of an address.

To add a kind, write a class with the methods of :class:`fruits.images.sources.source.Source`, and add it to
:data:`KINDS`. The name of an address decides, never the content of a file, and the options only where a kind needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fruits.errors import SettingsError
from fruits.images.sources.folder import FolderSource
from fruits.images.sources.labels import PathLabels
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import Source
from fruits.images.sources.tables.files import TableFiles, last_name
from fruits.images.sources.tables.image_table import ImageTableSource
from fruits.images.sources.tables.inventory import InventorySource
from fruits.images.sources.tables.manifest import ManifestSource
from fruits.images.tar.shards import is_tar, shard_folder
from fruits.images.tar.source import TarSource
from fruits.storage.folder import Folder
from fruits.storage.s3.settings import S3Settings


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source.

    Attributes
    ----------
    name : str
        Its name in messages.
    is_kind : callable
        Returns whether an address, with these options, is one of this kind.
    options : frozenset of str
        The names of the options that it takes, besides ``label_regex``.
    open : callable
        Returns the source of an address and options.
    """

    name: str
    is_kind: Callable[[str, SourceOptions], bool]
    options: frozenset[str]
    open: Callable[[str, SourceOptions], Source]


MANIFESTS = (".parquet", ".csv", ".jsonl")


def _open_folder(address: str, options: SourceOptions) -> FolderSource:
    return FolderSource(address, Folder.at(address), options.follow_links, options.include_hidden)


def _is_manifest(address: str, options: SourceOptions) -> bool:
    return options.path_column is not None or last_name(address).lower().endswith(MANIFESTS)


def _open_manifest(address: str, options: SourceOptions) -> ManifestSource:
    if options.path_column is None:
        raise SettingsError(
            f"{address} is a table: name its column of paths with `path_column`, or, if it is Parquet and contains the "
            "images, that of the images with `image_column`. If it is a folder of image files, end its address with a "
            "slash."
        )
    name = last_name(address).lower()
    suffix = next((suffix for suffix in MANIFESTS if name.endswith(suffix)), MANIFESTS[0])
    files = TableFiles.at(address, suffix)
    columns = options.path_column, options.label_column, options.version_column
    return ManifestSource(files, S3Settings.from_environment(), *columns)


def _open_image_table(address: str, options: SourceOptions) -> ImageTableSource:
    assert options.image_column is not None
    files = TableFiles.at(address, ".parquet")
    return ImageTableSource(files, options.image_column, options.path_column, options.label_column)


def _open_tar(address: str, options: SourceOptions) -> TarSource:
    folder, pattern = shard_folder(address)
    return TarSource(Folder.at(folder), pattern, options.include_hidden)


KINDS = (  # the first that an address belongs to
    Kind("tar archives", lambda address, options: is_tar(address), frozenset({"include_hidden"}), _open_tar),
    Kind(
        "a Parquet file with images",
        lambda address, options: options.image_column is not None,
        frozenset({"image_column", "path_column", "label_column"}),
        _open_image_table,
    ),
    Kind(
        "an S3 Inventory",
        lambda address, options: last_name(address).lower().endswith(".json"),
        frozenset({"include_hidden"}),
        lambda address, options: InventorySource(address, Folder.at(address), options.include_hidden),
    ),
    Kind("a manifest", _is_manifest, frozenset({"path_column", "label_column", "version_column"}), _open_manifest),
    Kind("a folder", lambda address, options: True, frozenset({"follow_links", "include_hidden"}), _open_folder),
)


def open_source(address: str, options: SourceOptions | None = None) -> Source:
    """Return the source of the images at an address; nothing is read yet.

    Parameters
    ----------
    address : str
        A local path or any fsspec URL.
    options : SourceOptions, optional

    Raises
    ------
    OutputError
        The address cannot be used; see :func:`fruits.storage.addresses.open_store`.
    SettingsError
        An option is one of another kind of source.
    """
    options = options or SourceOptions()
    kind = next(kind for kind in KINDS if kind.is_kind(address, options))
    if wrong := sorted(options.given().keys() - kind.options - {"label_regex"}):
        allowed = ", ".join(f"`{name}`" for name in sorted(kind.options | {"label_regex"}))
        raise SettingsError(f"`{wrong[0]}` with {address}: not allowed, because it is {kind.name}. Allowed: {allowed}.")
    source = kind.open(address, options)
    return source if options.label_regex is None else PathLabels(source, options.label_regex)


def stored_source(identity: Mapping[str, Any]) -> Source:
    """Return the source of a stored job.

    Parameters
    ----------
    identity : mapping
        The identity of the job: its address as ``images``, and the options that were given.
    """
    options = {field.name: identity.get(field.name, field.default) for field in fields(SourceOptions)}
    return open_source(str(identity["images"]), SourceOptions(**options))
