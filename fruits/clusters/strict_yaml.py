"""YAML as settings are written in it: no object is made, no key stands twice, and nothing is larger than it looks."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

__all__ = ["line_of", "parse"]

DEEPEST = 32  # levels; settings have four, and PyYAML reads each by recursion
MOST_VALUES = 10_000  # with each as often as it is referred to; settings have a few hundred
LONGEST_NUMBER = 100  # characters; Python takes the square of it to read one, and refuses to write it


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the content of a text, and the tree of nodes that tells the line of each value.

    Raises
    ------
    yaml.YAMLError
        It is not YAML, or not such YAML as is allowed here.
    """
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        return None, None
    _values(root, {})
    return loader.construct_document(root), root


def line_of(root: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line of a key, or of the nearest mapping around it where the key is missing."""
    node, line = root, 0
    for step in location:
        entries = node.value if isinstance(node, yaml.MappingNode) else ()
        for key, value in entries:
            if key.value == step:
                node, line = value, key.start_mark.line
                break
    return line + 1


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node is, each counted as often as an alias or a merge brings it in."""
    if id(node) not in known:
        known[id(node)] = 0  # while it is being counted
        held: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            held = node.value
        elif isinstance(node, yaml.MappingNode):
            held = [part for entry in node.value for part in entry]
        known[id(node)] = 1 + sum(_values(part, known) for part in held)
    count = known[id(node)]
    if not 0 < count <= MOST_VALUES:
        what = f"unpacks to more than {MOST_VALUES:,} values" if count else "holds itself"
        raise ConstructorError(problem=f"what begins here {what}", problem_mark=node.start_mark)
    return count


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with bounds, and without its errors that are none of YAML's.

    It keeps the last of two equal keys; here the second is an error.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth == DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ConstructorError(problem=f"values stand in each other more than {DEEPEST} deep", problem_mark=mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            if isinstance(node, yaml.ScalarNode) and kind != "str" and len(node.value) > LONGEST_NUMBER:
                raise ValueError
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ConstructorError(problem=f"this is no {kind}", problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise ConstructorError(
                    problem=f"{key.value} stands here for the second time, first in line {lines[key.value]}",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
