"""Reading files that are named one by one: by a path below a folder, or by an address on any store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from urllib.parse import urlsplit

from fruits.errors import FruitsError
from fruits.images.decode import ImageError
from fruits.images.sources.source import FILE_ERRORS, Content, image_bytes
from fruits.storage.addresses import is_http, open_store, split_chain
from fruits.storage.folder import Folder
from fruits.storage.prefetch import AHEAD, File, UnreachableError, web_server
from fruits.storage.s3.errors import AddressError
from fruits.storage.s3.settings import S3Settings
from fruits.storage.stores import END_OF_URL, Store

# The key of a store, the store, and the path on it or an error.
Opened = tuple[str, Store | None, str | ImageError | UnreachableError]


class Contents:
    """The contents of images as bytes; decides whether a server that cannot be reached is a fault of its images.

    An image whose server cannot be reached is a reject, unless nothing else was read, or the server answered before:
    then the server, or the network of this machine, is down, and nothing may be concluded about images.
    """

    def __init__(self) -> None:
        self._read: set[str] = set()  # servers
        self._unreachable: dict[str, tuple[str, UnreachableError]] = {}

    def bytes(self, path: str, content: Content) -> bytes:
        """Return the content of an image; see :func:`fruits.images.sources.source.image_bytes`."""
        if isinstance(content, UnreachableError) and "://" in path:
            self._unreachable.setdefault(content.server, (path, content))
            raise ImageError("unreadable", str(content)) from content
        data = image_bytes(content)
        self._read.add(web_server(path) if is_http(path) else _key(path))
        return data

    def check(self) -> None:
        """After all images: raise a ``ConnectionError`` unless the images of unreachable servers are rejects."""
        for server, (path, error) in self._unreachable.items():
            if not self._read or server in self._read:
                reason = "it answered before" if server in self._read else "no image of another server was read either"
                raise ConnectionError(
                    f"{path}: {error}; {reason}, so that its images are not taken for missing. Check the address, the "
                    "server and the network, or remove the images of the server from the list"
                ) from error


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
    unreachable: dict[str, UnreachableError] = {}

    def opened(path: str) -> Opened:
        try:
            key = _key(path)
            if not key:
                if key not in stores:
                    stores[key] = folder.open()
                store, root = stores[key]
                return key, store, _joined(root, path)
            if key in unreachable:
                raise unreachable[key]
            store, place = open_store(path, s3)
            return key, stores.setdefault(key, (store, ""))[0], place
        except (ImageError, UnreachableError) as error:
            return "", None, error
        except (FruitsError, ValueError) as error:  # ValueError: no URL
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno not in FILE_ERRORS:  # such as an FTP server that is down
                return "", None, unreachable.setdefault(key, UnreachableError(key.strip(":"), cause))
            return "", None, ImageError("unreadable", str(error))

    resolved = ((opened(path), size, version) for path, size, version in files)
    for (_, store), group in groupby(resolved, key=lambda each: each[0][:2]):
        if store is None:
            yield from (error for (_, _, error), _, _ in group if not isinstance(error, str))
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
