"""A YAML text as plain data that remembers the line of each key."""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from seqstress.errors import ScenarioError


def joined(key: str, part: str | int) -> str:
    """The key of an entry under ``key``: ``a.b`` of a mapping, ``a[0]`` of a list."""
    if isinstance(part, int):
        return f"{key}[{part}]"
    return f"{key}.{part}" if key else part


def parent(key: str) -> str:
    """The key that holds ``key``; empty for the outermost."""
    return key[: max(key.rfind("."), key.rfind("["), 0)]


@dataclass(frozen=True, slots=True)
class Document:
    """The data of one scenario file, and where in the file each key stands."""

    source: str
    data: dict[str, object]
    lines: dict[str, int]

    def error(self, key: str, problem: str, remedy: str) -> ScenarioError:
        """A mistake at ``key``, placed at its line, or at that of what lacks it."""
        place = key
        while place and place not in self.lines:
            place = parent(place)
        source = f"{self.source}:{self.lines[place]}" if place else self.source
        return ScenarioError(source, key, problem, remedy)


def read_document(text: str, source: str) -> Document:
    """The one document in a YAML text.

    Raises ScenarioError where it is no YAML, is empty, is something other than a mapping, or has a key twice,
    which YAML libraries let pass with the last one winning.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise ScenarioError(source, "", "the file is empty", "A scenario needs at least name and model.name")
        lines: dict[str, int] = {}
        for key, line in _lines(root, "", source, {}):
            lines[key] = line
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ScenarioError(place, "", f"is not YAML: {what}", "Look at this line and the one before it") from None
    except yaml.reader.ReaderError as error:
        problem = f"is not YAML: character {error.position} is {error.character!r}"
        raise ScenarioError(source, "", problem, "Save it as plain UTF-8 text") from None
    except RecursionError:
        raise ScenarioError(source, "", "is nested too deeply", "A scenario needs a handful of levels") from None
    if not isinstance(data, dict):
        raise ScenarioError(source, "", f"holds a {_kind(data)}, not keys with values", "Begin with `name: ...`")
    return Document(source, data, lines)


def _lines(node: yaml.Node, key: str, source: str, walked: dict[yaml.Node, bool]) -> Iterator[tuple[str, int]]:
    """Each key under ``node`` and its line. ``walked`` has the nodes that were entered before, and whether they were
    left again: aliases stand for one node in many places, which is told of once."""
    if node in walked:
        if not walked[node]:
            place = f"{source}:{node.start_mark.line + 1}"
            raise ScenarioError(place, key, "is an alias of what it is part of", "Write out what belongs there")
        return
    walked[node] = False
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            name, line = str(key_node.value), key_node.start_mark.line + 1
            inner = joined(key, name)
            if name in seen:
                raise ScenarioError(
                    f"{source}:{line}",
                    inner,
                    f"is there twice, first in line {seen[name]}",
                    "Keep one of the two",
                )
            seen[name] = line
            yield inner, line
            yield from _lines(value_node, inner, source, walked)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = joined(key, index)
            yield inner, item.start_mark.line + 1
            yield from _lines(item, inner, source, walked)
    walked[node] = True


def _kind(data: object) -> str:
    return "list" if isinstance(data, list) else "single value"
