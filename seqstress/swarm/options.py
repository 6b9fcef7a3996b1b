"""The command line that we add to Locust's, and what it says once the scenario has filled the gaps."""

import argparse
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from seqstress.errors import InputError
from seqstress.plan.patterns import PATTERNS
from seqstress.scenario import Scenario, load_scenario
from seqstress.wire.choice import TRANSPORTS

DEFAULT_SCENARIO = "scenarios/l0.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Called by Locust for every parser it makes, also for the web UI's form: keep it pure."""
    # Locust shows the arguments of a group nowhere in its web UI, those of the parser itself as fields of the form.
    parser.add_argument("--scenario", default=DEFAULT_SCENARIO, help="YAML file that says what to send")
    parser.add_argument("--model", default="", help="model to send to instead of the scenario's")
    parser.add_argument("--seed", default="", help="whole number that all plans are drawn from (default: random)")
    parser.add_argument(
        "--iterations", default="", help="plans per user, 0 = no limit (default: the scenario's load.iterations)"
    )
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="engine of the streams")
    group = parser.add_argument_group("seqstress")
    group.add_argument("--out", default="runs", help="folder for the results of runs (default: runs)")
    group.add_argument("--verbose-steps", action="store_true", help="print every step as it ends")
    group.add_argument(
        "--brief", action="store_true", help="leave out Locust's own tables at the end; the report has their figures"
    )
    group.add_argument("--repeat-command", default="", help=argparse.SUPPRESS)  # what ``seqstress run`` was asked
    # What the master tells its workers: it rides to them with Locust's own options.
    group.add_argument("--seqstress-run", default=None, help=argparse.SUPPRESS)


def scenario_of(options: Any) -> Scenario:
    """The scenario that the options name, with their model and users in it. Raises InputError."""
    scenario = load_scenario(Path(options.scenario))
    if options.model:
        scenario = scenario.with_model(options.model)
    return scenario if options.num_users is None else scenario.with_users(options.num_users)


def iterations_of(options: Any, scenario: Scenario) -> int | None:
    """Plans per user, None = no limit. Raises InputError."""
    if options.iterations in ("", None):
        return scenario.load.iterations
    return _whole(options.iterations, "--iterations") or None


def seed_of(options: Any) -> int | None:
    """The seed that was asked for, None = choose one. Raises InputError."""
    return None if options.seed in ("", None) else _whole(options.seed, "--seed")


def patterns_of(options: Any) -> frozenset[str]:
    """The patterns that ``--tags`` and ``--exclude-tags`` leave. Raises InputError for a tag that no pattern has."""
    wanted, unwanted = set(options.tags or PATTERNS), set(options.exclude_tags or ())
    unknown = sorted((wanted | unwanted) - PATTERNS.keys())
    if unknown:
        raise InputError(f"--tags: no pattern is called {', '.join(unknown)}. There are {', '.join(PATTERNS)}")
    return frozenset(wanted - unwanted)


def apply_load(options: Any, scenario: Scenario) -> None:
    """Let the scenario's load stand where the command line says nothing."""
    if options.num_users is None:
        options.num_users = scenario.load.users
    if options.spawn_rate is None:
        options.spawn_rate = scenario.load.spawn_rate
    if options.run_time is None and scenario.load.run_time_s is not None:
        options.run_time = int(scenario.load.run_time_s) or 1


def address_of(host: str | None) -> str:
    """HOST:PORT of the server's gRPC endpoint. Raises InputError."""
    if not host:
        raise InputError("no server was named. Give its gRPC endpoint with --host HOST:PORT")
    address = host.removeprefix("grpc://").removeprefix("http://").rstrip("/")
    name, colon, port = address.rpartition(":")
    if not colon or not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--host {host!r} is not HOST:PORT. Give the gRPC port too (Triton's default is 8001)")
    return address


def require_writable(directory: Path) -> None:
    """Make the folder of the results. Raises InputError: better now than after a long run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(f"--out {directory}: {error.strerror}. Name a folder that you may write to") from error


def _whole(text: Any, option: str) -> int:
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise InputError(f"{option} {text!r} is not a whole number. Give one of 0, 1, 2, ...")
    return number
