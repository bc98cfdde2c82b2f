"""Reading files that are named one by one: by a path below a folder, or by an address on any store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from urllib.parse import urlsplit

from fruits.errors import FruitsError
from fruits.images.decode import ImageError
from fruits.images.sources.source import Content
from fruits.storage.addresses import open_store, split_chain
from fruits.storage.folder import Folder
from fruits.storage.prefetch import AHEAD, File
from fruits.storage.s3.errors import AddressError
from fruits.storage.s3.settings import S3Settings
from fruits.storage.stores import END_OF_URL, Store

Opened = tuple[str, Store | None, str | ImageError]  # the key of a store, the store, and the path on it or an error


def read_addresses(folder: Folder, files: Iterable[File], s3: S3Settings) -> Iterator[Content]:
    """Yield the content of each file in order, prefetching where requests are slow.

    Parameters
    ----------
    folder : Folder
        The folder that relative paths start from.
    files : iterable of (str, int, str)
        Path or address, size and version; see :meth:`fruits.storage.folder.Folder.fetch`.
    s3 : S3Settings
        Settings of S3 for addresses.
    """
    stores: dict[str, tuple[Store, str]] = {}

    def opened(path: str) -> Opened:
        try:
            key = _key(path)
            if not key:
                if key not in stores:
                    stores[key] = folder.open()
                store, root = stores[key]
                return key, store, _joined(root, path)
            store, place = open_store(path, s3)
            return key, stores.setdefault(key, (store, ""))[0], place
        except ImageError as error:
            return "", None, error
        except (FruitsError, ValueError) as error:  # ValueError: no URL
            return "", None, ImageError("unreadable", str(error))

    resolved = ((opened(path), size, version) for path, size, version in files)
    for (_, store), group in groupby(resolved, key=lambda each: each[0][:2]):
        if store is None:
            yield from (error for (_, _, error), _, _ in group if isinstance(error, ImageError))
        else:
            places = ((str(path), size, version) for (_, _, path), size, version in group)
            for content in store.fetch(places, ahead=AHEAD):
                yield ImageError("unreadable", str(content)) if isinstance(content, AddressError) else content


def _key(path: str) -> str:
    """Return what addresses of one store have in common; empty for a path below the folder."""
    if path.startswith("/"):
        return "file"
    if "://" not in path:
        return ""
    first, _, others = split_chain(path)
    scheme, host, *_ = urlsplit(first)
    return f"{scheme}://{'' if scheme.startswith('s3') else host}::{others}"


def _joined(root: str, path: str) -> str:
    """Return a path below a root. As in a file system, ``..`` leads up, but not above a bucket or a host."""
    names = path.split("/")
    if ".." not in names and "." not in names:
        return f"{root}/{path}"
    url, mark, _ = root.partition(END_OF_URL)  # the paths of a web server contain its URL
    folders, below = url.split("/"), list[str]()
    fixed = 3 if "://" in root else 1
    for name in names:
        if name == ".." and not below and len(folders) == fixed:
            raise ImageError("unreadable", "its path leads out of the storage")
        if name == "..":
            (below or folders).pop()
        elif name != ".":
            below.append(name)
    return "/".join(("/".join(folders) + mark, *below))
