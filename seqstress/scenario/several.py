"""Several mistakes as one exception."""

from collections.abc import Sequence

from seqstress.errors import ScenarioError


class ScenarioListError(ScenarioError):
    """Several mistakes in one scenario: its text has one line for each, its fields are the first one's."""

    def __init__(self, errors: Sequence[ScenarioError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.source, first.key, first.problem, first.remedy)
        self.args = ("\n".join(map(str, self.errors)),)


def as_one(errors: Sequence[ScenarioError]) -> ScenarioError:
    """The one exception to raise for all of them."""
    return errors[0] if len(errors) == 1 else ScenarioListError(errors)
