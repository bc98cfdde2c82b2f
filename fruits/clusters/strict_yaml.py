"""YAML of settings: safe tags only, no duplicate keys, and the line of every value."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the content of a YAML text and its root node, which :func:`line_of` needs.

    Raises
    ------
    yaml.YAMLError
        The text is not YAML, has a tag that creates an object, or has a duplicate key.
    """
    loader = _Loader(text)
    root = loader.get_single_node()
    return (None if root is None else loader.construct_document(root)), root


def line_of(root: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line of a key, or of the nearest enclosing mapping if the key is missing."""
    node, line = root, 0
    for step in location:
        entries = node.value if isinstance(node, yaml.MappingNode) else ()
        for key, value in entries:
            if key.value == step:
                node, line = value, key.start_mark.line
                break
    return line + 1


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which rejects duplicate keys and reports every invalid value as a YAML error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(problem=f"not a valid {kind}", problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise ConstructorError(
                    problem=f"duplicate key {key.value}, first in line {lines[key.value]}", problem_mark=key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
