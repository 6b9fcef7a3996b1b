"""What the typed model found wrong, in words for the person who wrote the file."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic_core import ErrorDetails

from seqstress.errors import ScenarioError
from seqstress.scenario.document import Document, joined
from seqstress.scenario.model import scenario_schema
from seqstress.scenario.nearest import suggestion

_TYPES: Mapping[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "dict": "keys with values",
    "model": "keys with values",
    "model_attributes": "keys with values",
    "tuple": "a list",
}


def complaint(details: ErrorDetails, document: Document) -> ScenarioError:
    """The mistake that pydantic describes, with the key as it stands in the file and what to do about it."""
    path = _path_in_file(details, document.data)
    key = ""
    for part in path:
        key = joined(key, part)
    problem, remedy = _words(details, path)
    return document.error(key, problem, remedy)


def _words(details: ErrorDetails, path: list[str | int]) -> tuple[str, str]:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    expected = _TYPES.get(kind.removesuffix("_type").removesuffix("_parsing"))
    match kind:
        case "missing":
            return "is missing", "Add it"
        case "extra_forbidden":
            return "there is no such key", suggestion(str(path[-1]), known_keys(details["loc"][:-1]))
        case "union_tag_not_found":
            return (
                "does not say which distribution",
                f"Give `distribution:` one of {_choices(details['loc'])}",
            )
        case "union_tag_invalid":
            return (
                f"there is no distribution {context['tag']!r} here",
                suggestion(context["tag"], context["expected_tags"].replace("'", "").split(", ")),
            )
        case "enum" | "literal_error":
            known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"{_shown(given)} is none of the choices", suggestion(str(given), known)
        case "string_pattern_mismatch":
            return f"{_shown(given)} has other characters", "Use only a-z, 0-9, _ and -"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            bound = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}.get(
                kind, "at most"
            )
            limit = next(context[name] for name in ("gt", "ge", "lt", "le") if name in context)
            return f"{_shown(given)} is out of range", f"Give a number {bound} {_limit(limit)}"
        case "too_short" | "string_too_short":
            return "is empty", "Give at least one"
        case "finite_number":
            return f"{_shown(given)} is no finite number", "Give a finite number"
    if expected:
        hint = " (YAML reads 1e6 as text; write 1.0e+6)" if expected == "a number" and isinstance(given, str) else ""
        return f"{_shown(given)} is not {expected}", f"Give {expected}{hint}"
    return details["msg"], f"Given was {_shown(given)}; see `seqstress schema`"


def _limit(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "null (nothing)"
        case str():
            return f"the text {value!r}"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return str(value)


def _path_in_file(details: ErrorDetails, data: object) -> list[str | int]:
    """pydantic's location without the names of union members, which do not stand in the file."""
    path: list[str | int] = []
    *inner, last = details["loc"]
    for part in inner:
        if isinstance(data, dict) and (follow := _entry(data, part)) is not None:
            path.append(part)
            data = data[follow]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    is_there = (isinstance(data, dict) and _entry(data, last) is not None) or isinstance(last, int)
    if is_there or details["type"] == "missing":
        path.append(last)
    return path


def _entry(data: dict[Any, object], part: str | int) -> Any:
    """The key of ``data`` that pydantic, which saw it as JSON, calls ``part``."""
    return next((key for key in data if str(key) == str(part)), None)


def known_keys(location: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand at a location of pydantic's, read from the scenario's own JSON Schema."""
    nodes = _nodes_at(location)
    return sorted({name for node in nodes for name in cast(dict[str, Any], node.get("properties", {}))})


def _choices(location: tuple[str | int, ...]) -> str:
    tags = (node.get("properties", {}).get("distribution", {}).get("const") for node in _nodes_at(location))
    return ", ".join(tag for tag in tags if tag)


def _nodes_at(location: tuple[str | int, ...]) -> list[dict[str, Any]]:
    schema = cast(dict[str, Any], scenario_schema())
    nodes = [*_members(schema, schema)]
    for part in location:
        inner = [
            member
            for node in nodes
            if (below := node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part))
            for member in _members(below, schema)
        ]
        tagged = [node for node in nodes if node.get("properties", {}).get("distribution", {}).get("const") == part]
        nodes = inner or tagged or nodes
    return nodes


def _members(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a schema node stands for: references followed, unions taken apart."""
    if "$ref" in node:
        yield from _members(schema["$defs"][node["$ref"].rsplit("/", 1)[1]], schema)
    elif members := node.get("anyOf") or node.get("oneOf"):
        for member in members:
            yield from _members(member, schema)
    else:
        yield node
