"""The exception tree: every error carries what was wrong, where, and what to do about it.

Wrong answers of the server are outcomes (:class:`seqstress.protocol.Fate`), never exceptions of this tree.
"""

from seqstress.protocol import Fate, Stray


class SeqstressError(Exception):
    """The root of every error that seqstress raises on purpose."""


class InputError(SeqstressError):
    """The person gave something that cannot work; found before any load is sent (exit code 2)."""


class ScenarioError(InputError):
    """A scenario is wrong: names the file, the key, the problem and the remedy."""

    def __init__(self, source: str, key: str, problem: str, remedy: str) -> None:
        self.source, self.key, self.problem, self.remedy = source, key, problem, remedy
        place = f"{source}: {key}" if key else source
        super().__init__(f"{place}: {problem}. {remedy}")


class PreflightError(InputError):
    """The server, its model or this machine cannot run what was asked; says why and what to do."""


class ServerError(SeqstressError):
    """The embedded server did not start or died; ``log_tail`` holds the last lines it wrote."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        self.log_tail = log_tail
        super().__init__(f"{message}\n{log_tail}" if log_tail else message)


class InterruptedRunError(SeqstressError):
    """Ctrl-C or SIGTERM came while no load was running: there is nothing to judge."""


class WireError(SeqstressError):
    """The root of what the transports raise."""


class ConnectError(WireError):
    """No connection to the server could be made."""


class StreamClosedError(WireError):
    """A stream was used after it had ended."""


class RpcError(WireError):
    """A unary call ended with a gRPC status other than OK; ``code`` is the number of google.rpc.Code."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"gRPC status {code}: {message}")


class StepFailedError(SeqstressError):
    """What a ``request`` event of Locust carries for a step that did not end ``ok``.

    Locust groups failures by ``repr``, so there is exactly one constant text per fate: details belong
    into the failure record, not here.
    """


STEP_FAILURES: dict[Fate, StepFailedError] = {
    Fate.WRONG_RESULT: StepFailedError("wrong result: an answer with another value than the oracle's"),
    Fate.MALFORMED: StepFailedError("malformed: an answer without the output, or of another shape or datatype"),
    Fate.MISSING_ERROR: StepFailedError("missing error: an answer where the START error was due"),
    Fate.UNEXPECTED_ERROR: StepFailedError("unexpected error: no legitimate cause is known"),
    Fate.EXPIRED: StepFailedError("expired: the server had dropped the sequence for a legitimate cause"),
    Fate.QUEUED: StepFailedError("queued: no answer in time while our own sequences filled every slot"),
    Fate.TIMEOUT: StepFailedError("timeout: no answer by the deadline"),
    Fate.DISCONNECTED: StepFailedError("disconnected: the stream or connection broke"),
    Fate.ABORTED: StepFailedError("aborted: given up when the user or the run was stopped"),
}

STRAY_FAILURES: dict[Stray, StepFailedError] = {
    stray: StepFailedError(f"stray answer: {stray.label}") for stray in Stray
}
