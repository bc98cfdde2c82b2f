"""The import graph of the project's source, and the rules on it. Nothing is imported: the source is parsed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Graph = dict[str, set[str]]
Layers = Sequence[Sequence[str]]


def find_modules(root: Path, *packages: str) -> dict[str, Path]:
    """Return the modules of top-level packages: name → file."""
    modules = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(path: Path, root: Path) -> Iterator[str]:
    """Yield the full name of every import of a module: in functions, for types only, and by a literal name too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = path.relative_to(root).parent.parts
                base = ".".join([*package[: len(package) - level + 1], *filter(None, [module])]) if level else module
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]
            ):
                if called in ("import_module", "__import__", "find_spec"):
                    yield name


def import_graph(root: Path, *packages: str) -> Graph:
    """Return the modules that each module imports, among those of `packages`."""
    modules = find_modules(root, *packages)
    graph: Graph = {module: set() for module in modules}
    for module, path in modules.items():
        for name in imported_names(path, root):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def wrong_directions(graph: Graph, layers: Layers, *, exact: Sequence[str] = (), free: Sequence[str] = ()) -> list[str]:
    """Return the imports that do not run from a higher layer to a lower one, and the modules without a layer.

    Parameters
    ----------
    layers : sequence of sequences of str
        Packages or modules, the lowest layer first. A module belongs to the longest name that it is within.
        Those of one layer do not import each other.
    exact : sequence of str
        Names in `layers` that stand for the package's ``__init__`` alone.
    free : sequence of str
        Names in `layers` that may import each other within their layer.
    """
    ranks = {name: rank for rank, names in enumerate(layers) for name in names}

    def owner(module: str) -> str | None:
        names = [name for name in ranks if module == name or (module.startswith(name + ".") and name not in exact)]
        return max(names, key=len, default=None)

    wrong = [f"{module} is in no layer" for module in graph if owner(module) is None]
    for module, targets in sorted(graph.items()):
        source = owner(module)
        for target in sorted(targets):
            destination = owner(target)
            if source is None or destination is None or source == destination:
                continue
            both_free = ranks[source] == ranks[destination] and {source, destination} <= set(free)
            if ranks[source] <= ranks[destination] and not both_free:
                wrong.append(f"{module} imports {target}")
    return wrong


def cycles(graph: Graph) -> list[list[str]]:
    """Return one cycle for each module that can reach itself, each cycle once."""
    found: dict[frozenset[str], list[str]] = {}
    for start in sorted(graph):
        if not any(start in cycle for cycle in found):
            path = _path_back(graph, start)
            if path:
                found[frozenset(path)] = path
    return list(found.values())


def _path_back(graph: Graph, start: str) -> list[str]:
    """Return the shortest path from a module to itself, or nothing."""
    previous: dict[str, str] = {}
    queue = [start]
    for module in queue:
        for target in sorted(graph[module]):
            if target == start:
                path = [start]
                while module != start:
                    path.insert(1, module)
                    module = previous[module]
                return [*path, start]
            if target not in previous:
                previous[target] = module
                queue.append(target)
    return []


def too_large(modules: Mapping[str, Path], *, direct: Mapping[str, int], per_folder: int, lines: int) -> list[str]:
    """Return the folders with too many modules and the modules with too many lines.

    Parameters
    ----------
    direct : mapping of str to int
        Largest number of modules directly in a package, its ``__init__`` included.
    per_folder : int
        Largest number of modules in any other folder, without its ``__init__``.
    lines : int
        Largest number of lines of a module.
    """
    folders: dict[str, int] = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        counted = package in direct or path.name != "__init__.py"
        folders[package] = folders.get(package, 0) + counted
    wrong = []
    for package, count in folders.items():
        allowed = direct.get(package, per_folder)
        if count > allowed:
            wrong.append(f"{package} has {count} modules, {allowed} are allowed")
    for module, path in modules.items():
        count = len(path.read_text("utf-8").splitlines())
        if count > lines:
            wrong.append(f"{module} has {count} lines, {lines} are allowed")
    return wrong
