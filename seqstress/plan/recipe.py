"""The sections of a scenario that plans are drawn from."""

from enum import Enum
from typing import Annotated, Final, Protocol

from pydantic import Discriminator, Field, NonNegativeFloat, NonNegativeInt, Tag

from seqstress.plan.distributions import Distribution, Normal, UniformValues, ValuePart
from seqstress.plan.ids import IdLayout
from seqstress.plan.section import Section

ContextCount = Annotated[NonNegativeInt, Field(le=10_000)]


class Contexts(Section):
    """How many clients of the server one user plays, each with its own stream, correlation ID and memory."""

    common: ContextCount = 2
    """Contexts that a user takes at random."""
    rare: ContextCount = 8
    """Contexts that a user takes in rotation, so that each one rests for long."""
    rare_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of the choices that goes to the next rare context."""


SEED_COMMON: Final = {"no_start": 1.0, "no_end": 4.0, "valid_no_end": 5.0, "valid_valid": 5.0, "valid": 85.0}
SEED_RARE: Final = {"no_end": 33.0, "valid_no_end": 33.0, "valid_valid": 34.0}


class Mix(Section):
    """The weights of the patterns (any positive scale): common and rare contexts have a mix each."""

    common: dict[str, NonNegativeFloat] = SEED_COMMON
    rare: dict[str, NonNegativeFloat] = SEED_RARE


Values = Annotated[
    Annotated[ValuePart, Tag("one")] | Annotated[tuple[ValuePart, ...], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, (list, tuple)) else "one"),
]


class SequenceShape(Section):
    """What one sequence looks like."""

    length: Distribution = Normal(distribution="normal", mean=16, sd=8, min=1)
    """Steps of a sequence."""
    value: Values = UniformValues(distribution="uniform", low=0, high=1 << 20)
    """Value of a step: one distribution, or a list of them with a weight each."""

    @property
    def value_parts(self) -> tuple[ValuePart, ...]:
        """The distributions of values that have weight, as a tuple whether one or several were given."""
        parts = self.value if isinstance(self.value, tuple) else (self.value,)
        return tuple(part for part in parts if part.weight > 0)


class IdPolicy(Enum):
    """When a context changes its correlation ID."""

    FIXED = "fixed"
    """Never: one for the whole run, as the seed of this tool does it."""
    FRESH = "fresh"
    """Every plan has a new one."""


class Ids(Section):
    """Which correlation IDs are used."""

    policy: IdPolicy = IdPolicy.FIXED
    layout: IdLayout = IdLayout.PACKED


class PacingMode(Enum):
    """When the next step of a sequence leaves."""

    PIPELINED = "pipelined"
    """At once: all steps of a sequence go out together, as the seed of this tool does it."""
    LOCKSTEP = "lockstep"
    """When the step before it was answered."""
    PACED = "paced"
    """A think time after the step before it was answered."""


class Pacing(Section):
    """When the steps of a sequence leave."""

    mode: PacingMode = PacingMode.PIPELINED
    think_ms: Distribution | None = None
    """Pause before each step but the first, in milliseconds (mode paced only)."""


class Recipe(Protocol):
    """What plans are drawn from; a :class:`seqstress.scenario.Scenario` is one."""

    @property
    def contexts(self) -> Contexts:
        """How many contexts a user has."""

    @property
    def mix(self) -> Mix:
        """The weights of the patterns."""

    @property
    def sequence(self) -> SequenceShape:
        """The lengths and values."""

    @property
    def ids(self) -> Ids:
        """Which correlation IDs are used."""

    @property
    def pacing(self) -> Pacing:
        """When steps leave."""

    @property
    def oracle(self) -> str:
        """The name of the oracle."""
