"""What is installed, what a server and its models say, what will not work and why: for ``seqstress doctor``."""

from dataclasses import dataclass
from pathlib import Path

from seqstress.errors import InputError, WireError
from seqstress.report.versions import client_versions
from seqstress.scenario import Scenario, load_scenario
from seqstress.triton.control import Control
from seqstress.triton.host import check_host
from seqstress.triton.preflight import examine
from seqstress.triton.releases import installed_release
from seqstress.wire.transport import Http2Transport

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    text: str
    is_well: bool | None = None
    """Whether it works; None where it is only told."""


def examine_client() -> list[Finding]:
    """This machine: versions, and whether the embedded server can run here."""
    findings = [Finding(package, version) for package, version in client_versions().items()]
    problems = [Finding(problem.subject, problem.sentence, False) for problem in check_host()]
    return findings + (problems or [Finding("embedded server", f"Triton {installed_release()} can run here", True)])


def examine_server(address: str, scenario: Path | None, model: str | None) -> list[Finding]:
    """A server by its gRPC endpoint: does it answer, what has it, and does the scenario fit its model?"""
    transport = Http2Transport(address, connect_timeout_s=TIMEOUT_S)
    try:
        return _examine(Control(transport, TIMEOUT_S), _story(scenario, model), scenario)
    except WireError as error:
        return [Finding("server", f"{error}. Does Triton run there, and is this its gRPC port?", False)]
    finally:
        transport.close()


def _story(scenario: Path | None, model: str | None) -> Scenario | None:
    if scenario is not None:
        story = load_scenario(scenario)
        return story.with_model(model) if model else story
    return Scenario.from_plain({"name": "doctor", "model": {"name": model}}) if model else None


def _examine(control: Control, story: Scenario | None, source: Path | None) -> list[Finding]:
    facts = control.server_metadata()
    ready = control.server_ready()
    findings = [
        Finding("server", f"{facts.name} {facts.version}", True),
        Finding("ready", "all models are ready" if ready else "the server says that it is not ready", ready),
    ]
    findings += _models(control)
    if story is not None:
        findings += _fit(control, story, source)
    return findings


def _models(control: Control) -> list[Finding]:
    """Each loaded model with what its config says about sequences."""
    findings = []
    for entry in control.repository_index():
        subject = f"model {entry.name}"
        if entry.state != "READY":
            findings.append(Finding(subject, f"{entry.state or 'not loaded'} {entry.reason}".strip(), None))
            continue
        try:
            target = examine(control, Scenario.from_plain({"name": "doctor", "model": {"name": entry.name}}), "doctor")
        except InputError as error:
            findings.append(Finding(subject, f"cannot be tested: {error}", None))
            continue
        sent, received = target.binding.input, target.binding.output
        text = (
            f"{target.strategy.value}, {target.slots} slots, idle limit {target.idle_limit_ns / 1e9:g} s, "
            f"{sent.name} {sent.dtype.value} {list(sent.shape)} -> {received.name}"
        )
        findings.append(Finding(subject, text, True))
    return findings


def _fit(control: Control, story: Scenario, source: Path | None) -> list[Finding]:
    subject = f"scenario {story.name} on {story.model.name}"
    try:
        target = examine(control, story, str(source or "command line"))
    except InputError as error:
        return [Finding(subject, str(error), False)]
    return [Finding(subject, "fits", True), *(Finding(subject, warning, None) for warning in target.warnings)]
