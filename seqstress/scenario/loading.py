"""From YAML to a Scenario: every mistake becomes one sentence with file, line, key and remedy."""

from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from seqstress.errors import ScenarioError
from seqstress.scenario.complaints import complaint
from seqstress.scenario.document import read_document
from seqstress.scenario.model import Scenario
from seqstress.scenario.nearest import suggestion
from seqstress.scenario.rules import contradictions
from seqstress.scenario.several import as_one


def load_scenario(path: Path) -> Scenario:
    """The scenario in a YAML file. Raises ScenarioError, which tells of every mistake that was found."""
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = sorted(entry.name for entry in path.parent.glob("*.yaml"))
        raise ScenarioError(source, "", "there is no such file", suggestion(path.name, beside)) from None
    except UnicodeDecodeError as error:
        raise ScenarioError(source, "", f"is not UTF-8 text ({error.reason})", "Save it as UTF-8") from None
    except OSError as error:
        raise ScenarioError(source, "", f"cannot be read: {error.strerror}", "Give a readable YAML file") from None
    return parse_scenario(text, source)


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario in a YAML text; ``source`` names the text in errors. Raises ScenarioError."""
    document = read_document(text, source)
    try:
        scenario = Scenario.from_plain(document.data)
    except ValidationError as error:
        raise as_one([complaint(details, document) for details in _root_causes(error)]) from None
    found = [document.error(*contradiction) for contradiction in contradictions(scenario)]
    if found:
        raise as_one(found)
    return scenario


def _root_causes(error: ValidationError) -> list[ErrorDetails]:
    """A list whose items are all wrong also counts as too short: the items say enough."""
    every = error.errors()
    inside = {details["loc"][:-1][:depth] for details in every for depth in range(len(details["loc"]))}
    return [details for details in every if details["type"] != "too_short" or details["loc"] not in inside]
