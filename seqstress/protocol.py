"""What the wire, the drive and the verdict all speak: calls, replies, fates. A leaf: imports nothing of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

Value = int | float
CorrelationId = int | str

START_ERROR = "must specify the START flag"
"""Part of Triton's answer to a step of a sequence that it does not know (sequence_batch_scheduler.cc)."""


class Dtype(Enum):
    """The datatypes an accumulator can have, by Triton's names; BYTES holds decimal integers."""

    INT32 = "INT32"
    INT64 = "INT64"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class TensorSpec(NamedTuple):
    """A tensor on the wire; ``shape`` is the full one that goes into a request, batch dimension included."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]


class Binding(NamedTuple):
    """How steps become requests of one model: what codecs and streams need to know of it."""

    model: str
    version: str
    input: TensorSpec
    output: TensorSpec
    decoupled: bool


class Call(NamedTuple):
    """One request as the wire gets it. ``value`` fills every element of the input tensor."""

    request_id: str
    correlation_id: CorrelationId
    start: bool
    end: bool
    value: Value


class ReplyKind(IntEnum):
    """What a message of the server holds."""

    VALUE = 0
    """The output tensor, well formed."""
    ERROR = 1
    """An in-stream error; ``text`` is the server's."""
    EMPTY = 2
    """No outputs and no error. On a decoupled model with ``final`` set it is legal: the end of a step's answers."""
    MALFORMED = 3
    """The output is missing beside others, or has another shape or dtype, or garbage; ``text`` says which."""


class Reply(NamedTuple):
    """One message of the server on a stream."""

    request_id: str
    """The id of the request it answers; "" where the server or the transport does not tell."""
    kind: ReplyKind
    value: Value | tuple[Value, ...] | None
    """A scalar where all elements agree (always for one element), else all elements in order."""
    text: str
    model: str
    """As the server names it: "" for errors at enqueue time."""
    final: bool
    """Whether it is the last answer to its request; always true on a model that is not decoupled."""


class EndCause(Enum):
    """Why a stream is over."""

    COMPLETED = "completed"
    """The server ended it with status OK."""
    STATUS = "status"
    """The server ended it with another gRPC status."""
    RESET = "reset"
    """The server reset it (RST_STREAM)."""
    GOAWAY = "goaway"
    """The server refused it while going away."""
    DISCONNECTED = "disconnected"
    """The connection under it broke or was closed by the server."""
    PROTOCOL = "protocol"
    """The server sent what HTTP/2 or gRPC forbids."""
    LOCAL = "local"
    """We reset it or closed the connection."""


class StreamEnd(NamedTuple):
    """The last event of a stream; ``status`` is the gRPC status where the server gave one."""

    cause: EndCause
    status: int | None
    text: str


class StreamListener(Protocol):
    """Who owns a stream is told about it, in the greenlet that reads the connection: never block here."""

    def on_sent(self, count: int, at_ns: int) -> None:
        """The next ``count`` calls, in the order of ``send``, have wholly been handed to the kernel."""

    def on_reply(self, reply: Reply, at_ns: int) -> None:
        """A message came in; ``at_ns`` is the monotonic time at which its bytes were read."""

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """The stream is over, for whatever cause; called exactly once, and nothing follows."""


class Stream(Protocol):
    """One ModelStreamInfer call. Calls of one turn of the event loop leave in one write."""

    @property
    def is_open(self) -> bool:
        """Whether calls can still be sent."""

    @property
    def is_draining(self) -> bool:
        """Whether its connection is going away: what was begun is still served, but nothing more should begin."""

    def send(self, calls: Sequence[Call]) -> None:
        """Queue ``calls`` in order and return at once. Raises StreamClosedError when the stream is over."""

    def half_close(self) -> None:
        """Say that no more calls follow; what is under way is still answered."""

    def reset(self) -> None:
        """Cancel the call on the server; the listener's ``on_end`` is told ``LOCAL`` before this returns."""


class Transport(Protocol):
    """Opens streams to one server; also the owner of every connection behind them."""

    tells_error_ids: bool
    """Whether a reply of kind ERROR carries its request id (the stock tritonclient drops it)."""

    def open_stream(self, binding: Binding, listener: StreamListener) -> Stream:
        """Open a stream, connecting first where need be (blocks this greenlet). Raises ConnectError."""

    def close(self) -> None:
        """End every stream (``LOCAL``) and connection; idempotent, never blocks for longer than a second."""


class Fate(IntEnum):
    """How a step ended: exactly one each. An IntEnum, so that hot counters are plain lists."""

    OK = 0
    """The expected value(s), or the expected error."""
    WRONG_RESULT = 1
    """An answer with another value."""
    MALFORMED = 2
    """An answer without the output, or with another shape or dtype."""
    MISSING_ERROR = 3
    """An answer where an error was due."""
    UNEXPECTED_ERROR = 4
    """An error where an answer was due, or another error than the expected one, with no legitimate cause."""
    EXPIRED = 5
    """The START error with a legitimate cause that our own records show (see Cause)."""
    QUEUED = 6
    """No answer by the deadline, behind a START that our own open sequences kept waiting for a slot."""
    TIMEOUT = 7
    """Any other step without an answer by its deadline."""
    DISCONNECTED = 8
    """The stream or connection broke while the step was open."""
    ABORTED = 9
    """We gave up: the user or the run was stopped."""

    @property
    def label(self) -> str:
        """The name in reports and on the wire between workers."""
        return self.name.lower()


class Stray(IntEnum):
    """An answer that no open step asked for, counted beside the fates."""

    OUT_OF_ORDER = 0
    """An answer to a later step of a sequence before an earlier one's (the answer itself is still judged)."""
    DUPLICATE = 1
    """A further answer to a step that was already answered in full."""
    ORPHAN = 2
    """An answer to a request that this stream never sent."""
    LATE = 3
    """An answer after its step was given up."""

    @property
    def label(self) -> str:
        """The name in reports and on the wire between workers."""
        return self.name.lower()


class Cause(Enum):
    """Why the server may rightly have dropped a sequence (fate ``expired``)."""

    IDLE = "idle"
    """By our own clock of sends the sequence was idle for the limit; execution and backlog count as idle."""
    MAYBE_IDLE = "maybe_idle"
    """Within the loop's lag plus a round trip of the idle limit: our clock cannot tell."""
    RESET = "reset"
    """We reset a stream that had steps of this sequence queued."""
    DISCONNECT = "disconnect"
    """The connection broke since the sequence started."""
    RELOAD = "reload"
    """The model was loaded anew since the sequence started."""
    RESTART = "restart"
    """The server process was started anew since the sequence started."""
    BACKLOG_TIMEOUT = "backlog_timeout"
    """An earlier step of the sequence was rejected for its timeout in the backlog."""


class Expect(IntEnum):
    """What the contract says of a step."""

    ANSWERS = 0
    """The values of ``Step.answers``, in order, and nothing else."""
    START_ERROR = 1
    """The error that names the START flag."""


class Step(NamedTuple):
    """One request of a planned sequence, with its expectation."""

    start: bool
    end: bool
    value: Value
    expect: Expect
    answers: tuple[Value, ...]
    """One value for a usual model, 0..n for a decoupled one; empty where an error is expected."""
    think_us: int = 0
    """Pause before the send, counted from the answer before it (pacing ``paced``), in microseconds."""


class ServerState(Enum):
    """What a context knows of its correlation ID on the server."""

    CLEAN = "clean"
    """No sequence is open: never used, or ended."""
    OPEN = "open"
    """A sequence was left open on purpose; the server forgets it at its idle limit."""
    UNKNOWN = "unknown"
    """A timeout, reset or disconnect: anything may be there."""


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """The steps of one sequence; ``id_ref`` says which of the plan's relative IDs it uses."""

    id_ref: int
    steps: tuple[Step, ...]
    leaves: ServerState
    """The state of its correlation ID once every step was answered as expected (CLEAN or OPEN)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a context sends next: one pattern, drawn before anything is sent."""

    pattern: str
    context: int
    """The index of the context within its user."""
    number: int
    """How many plans this context had before."""
    seed_path: tuple[int, ...]
    """From the run's seed down to this plan: what it takes to draw it again, with the pattern's name."""
    sequences: tuple[SequencePlan, ...]

    @property
    def step_count(self) -> int:
        """How many steps all sequences have."""
        return sum(len(sequence.steps) for sequence in self.sequences)
