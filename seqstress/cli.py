"""The command line: ``seqstress run | serve | l0 | doctor | schema``."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqstress.doctor import examine_client, examine_server
from seqstress.errors import InputError, InterruptedRunError, PreflightError, SeqstressError, ServerError
from seqstress.launch import WEB_HOST, WEB_PORT, LocustRun, run_locust
from seqstress.report.summary import summary_schema
from seqstress.report.text import print_anything
from seqstress.scenario import load_scenario, scenario_schema
from seqstress.triton.host import port_problems
from seqstress.triton.releases import has_option, locate
from seqstress.triton.repository import MODELS, specs_named
from seqstress.triton.server import TritonServer, free_ports
from seqstress.triton.server import serve as serve_models
from seqstress.verdict.rules import Outcome

BAD_INPUT = 2

OWN_OPTIONS = (
    *("--scenario", "--host", "-H", "--headless", "--locustfile", "-f"),
    *("--master*", "--worker*", "--processes", "--web-host", "--web-port", "-P"),
)
"""What ``run`` gives to Locust by itself; ``*`` = all that begin so."""
OWN_OPTIONS_ADVICE = "seqstress run sets it by itself, from its arguments SCENARIO, --url, --workers and --ui"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Load and correctness tester for the sequence batcher of NVIDIA Triton Inference Server.",
    epilog="Example: seqstress run scenarios/smoke.yaml",
)

Seed = Annotated[str, typer.Option("--seed", "-s", help="Whole number that all plans are drawn from.")]
Iterations = Annotated[str, typer.Option("--iterations", "-i", help="Plans per user; 0 = no limit.")]
Users = Annotated[int | None, typer.Option("--users", "-u", min=1, help="Users, over all workers.")]
RunTime = Annotated[str, typer.Option("--run-time", "-t", help="End after this time, e.g. 90s, 10m.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 = one process does everything.")]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Release = Annotated[str | None, typer.Option(help="Release of the embedded Triton: 2.36, 2.39, 2.47 or 2.51.")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: seqstress run scenarios/l0.yaml --url triton.example:8001 --model my_model --run-time 10m. "
    "Options that are not listed here go to Locust, e.g. --tags valid.",
)
def run(
    context: typer.Context,
    scenario: Annotated[Path, typer.Argument(help="YAML file that says what to send.")],
    embedded: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start the embedded Triton with this model (default).")
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use a server that runs already (gRPC).")] = None,
    model: Annotated[str | None, typer.Option(help="Model to send to instead of the scenario's.")] = None,
    users: Users = None,
    spawn_rate: Annotated[float | None, typer.Option("--spawn-rate", "-r", help="Users started per second.")] = None,
    run_time: RunTime = "",
    iterations: Iterations = "",
    workers: Workers = 0,
    seed: Seed = "",
    out: Out = Path("runs"),
    ui: Annotated[bool, typer.Option("--ui", help=f"Locust's web UI on {WEB_HOST}:{WEB_PORT}, not headless.")] = False,
    release: Release = None,
    grpc_threads: Annotated[int | None, typer.Option(help="Inference threads of the embedded server's gRPC.")] = None,
) -> None:
    """Run a scenario against a server and exit with the verdict: 0 PASS, 1 FAIL, 3 UNKNOWN (2: bad input)."""
    if url is not None and (embedded is not None or release is not None or grpc_threads is not None):
        raise InputError("--url names a server that runs already: leave out --embedded, --release and --grpc-threads")
    _require_not_ours(context.args)
    if embedded is not None and model is not None and embedded != model:
        raise InputError(f"--embedded {embedded} and --model {model} name two models. Give one")
    if ui and any(port_problems(WEB_HOST, (WEB_PORT,))):
        raise PreflightError(
            f"--ui: port {WEB_PORT} on {WEB_HOST} is in use. End what listens there, or leave out --ui"
        )
    story = load_scenario(scenario)
    name = embedded or model or story.model.name
    arguments = [
        *_option("--model", name if name != story.model.name else None),
        *_option("--users", users),
        *_option("--spawn-rate", spawn_rate),
        *_option("--run-time", run_time),
        *_option("--iterations", iterations),
        *_option("--seed", seed),
        *_option("--out", out),
        *_option("--repeat-command", _without_seed(sys.argv[1:])),
        *context.args,
    ]
    with ExitStack() as stack:
        stack.enter_context(_interruptible())
        server = None
        if url is None:
            server = stack.enter_context(_embedded(name, release, grpc_threads))
        address = server.grpc_target if server else url
        assert address is not None
        if ui:
            print(f"Locust's web UI: http://{WEB_HOST}:{WEB_PORT}", flush=True)
        code, _ = run_locust(LocustRun(scenario, address, tuple(arguments), workers, ui), _free_port())
        if server is not None and not server.is_running:
            print(f"The embedded server died ({_ending(server.returncode)}):\n{server.log_tail()}", file=sys.stderr)
    raise typer.Exit(code)


@app.command(epilog="Example: seqstress serve --models l0_1x4,direct --grpc-port 8001")
def serve(
    models: Annotated[str | None, typer.Option(help=f"Some of {', '.join(MODELS)} (default: all).")] = None,
    model_repository: Annotated[Path | None, typer.Option(help="A model repository of yours instead.")] = None,
    release: Release = None,
    grpc_port: Annotated[int | None, typer.Option(help="Default: a free one.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Default: a free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Default: a free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_threads: Annotated[int | None, typer.Option(help="Inference threads of the server's gRPC.")] = None,
) -> None:
    """Run the embedded Triton until Ctrl-C, with models of seqstress or with anybody's model repository."""
    code = serve_models(
        models=models.split(",") if models is not None else None,
        model_repository=model_repository,
        release=release,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        host=host,
        grpc_threads=grpc_threads,
    )
    raise typer.Exit(code)


L0_MODELS = ("l0_1x4", "l0_2x2", "l0_4x1")
L0_THREADS = (None, 128)
L0_REFUSED_THREADS = (-1, 0, 1, 129)
L0_COLUMNS = ("model", "gRPC threads", "verdict")
GRPC_THREADS = "grpc-infer-thread-count"


@app.command(epilog="Example: seqstress l0 --iterations 20")
def l0(
    users: Users = None,
    run_time: RunTime = "",
    iterations: Iterations = "",
    seed: Seed = "",
    out: Out = Path("runs"),
    release: Release = None,
    scenario: Annotated[Path, typer.Option(help="The story that each layout is told.")] = Path("scenarios/l0.yaml"),
) -> None:
    """The matrix of Triton's own L0_sequence_stress: three layouts, with the default and with 128 gRPC threads, and
    thread counts that the server must refuse."""
    load_scenario(scenario)
    arguments = [
        *_option("--users", users),
        *_option("--run-time", run_time),
        *_option("--iterations", iterations),
        *_option("--seed", seed),
        *_option("--out", out),
    ]
    takes_threads = has_option(locate(release), GRPC_THREADS)
    rows: list[tuple[str, str, str]] = []
    codes: list[int] = []
    with _interruptible():
        for threads, name in product(L0_THREADS if takes_threads else L0_THREADS[:1], L0_MODELS):
            with _embedded(name, release, threads) as server:
                run = LocustRun(scenario, server.grpc_target, (*arguments, "--model", name))
                code, was_stopped = run_locust(run, _free_port())
            codes.append(code)
            rows.append((name, "default" if threads is None else str(threads), _outcome_text(code)))
            if was_stopped or code == BAD_INPUT:
                _print_table("L0 matrix, not finished", L0_COLUMNS, rows)
                raise typer.Exit(_worst([*codes, Outcome.UNKNOWN.exit_code]))
        for threads in L0_REFUSED_THREADS if takes_threads else ():
            outcome, what = _try_threads(threads, release)
            codes.append(outcome.exit_code)
            rows.append((L0_MODELS[0], str(threads), f"{outcome.value}: {what}"))
    if not takes_threads:
        others = ", ".join(str(threads) for threads in (*L0_THREADS[1:], *L0_REFUSED_THREADS))
        rows.append(("all", others, f"not run: this release of Triton has no --{GRPC_THREADS}"))
    _print_table("L0 matrix", L0_COLUMNS, rows)
    raise typer.Exit(_worst(codes))


@app.command(epilog="Example: seqstress doctor --url triton.example:8001 --scenario scenarios/steady.yaml")
def doctor(
    url: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Also examine this server (gRPC).")] = None,
    scenario: Annotated[Path | None, typer.Option(help="Also see whether this scenario fits the server.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to use instead of the scenario's.")] = None,
) -> None:
    """Say what is installed, what the server and its models are, what will not work and why."""
    findings = examine_client()
    if url is not None:
        findings += examine_server(url, scenario, model)
    elif scenario is not None:
        raise InputError("--scenario needs --url: whether it fits is a question to a server")
    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "[dim]-[/]"}
    table = Table("", "what", "finding", title="seqstress doctor", title_justify="left")
    for finding in findings:
        table.add_row(marks[finding.is_well], escape(finding.subject), escape(finding.text))
    Console().print(table)
    raise typer.Exit(0 if all(finding.is_well is not False for finding in findings) else BAD_INPUT)


@app.command(epilog="Example: seqstress schema > scenario.schema.json")
def schema(
    summary: Annotated[bool, typer.Option("--summary", help="That of summary.json instead of scenarios.")] = False,
) -> None:
    """Print the JSON Schema of scenario files, for editors."""
    print(json.dumps(summary_schema() if summary else scenario_schema(), indent=2))


def main() -> NoReturn:
    """The entry point: every error of ours is one message, not a traceback."""
    print_anything()
    try:
        app(prog_name="seqstress")
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except SeqstressError as error:
        _fail(str(error), Outcome.UNKNOWN.exit_code)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"seqstress: {message}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM unwind in good order, with an exit code that is not the verdict FAIL."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise InterruptedRunError("stopped; there is no verdict")

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _embedded(name: str, release: str | None, grpc_threads: int | None) -> TritonServer:
    threads = "" if grpc_threads is None else f" and {grpc_threads} gRPC threads"
    print(f"Starting the embedded Triton with model {name}{threads} ...", flush=True)
    return TritonServer(specs_named([name]), release=release, grpc_threads=grpc_threads)


def _try_threads(threads: int, release: str | None) -> tuple[Outcome, str]:
    """Whether the server refuses this number of threads: only its own word about the option proves it."""
    try:
        with _embedded(L0_MODELS[0], release, threads):
            return Outcome.FAIL, "started"
    except ServerError as error:
        # Triton spells it in both ways.
        if f"--{GRPC_THREADS}" in str(error).replace("_", "-"):
            return Outcome.PASS, "refused to start"
        reason = str(error).partition("\n")[0]
        return Outcome.UNKNOWN, f"it did not start, for another reason: {reason}"


def _require_not_ours(arguments: Sequence[str]) -> None:
    """Raise InputError where an argument for Locust is an option that ``run`` itself gives to it."""
    for argument in arguments:
        name = argument.partition("=")[0] if argument.startswith("--") else argument[:2]
        # Locust takes unambiguous beginnings of long options too.
        if len(name) > 1 and name != "--" and any(_is_short_for(name, option) for option in OWN_OPTIONS):
            raise InputError(f"{name} cannot be passed on to Locust: {OWN_OPTIONS_ADVICE}")


def _is_short_for(name: str, option: str) -> bool:
    if option.endswith("*") and name.startswith(option.removesuffix("*")):
        return True
    return option.startswith(name) if name.startswith("--") else option == name


def _option(name: str, value: object) -> list[str]:
    return [] if value in (None, "") else [name, str(value)]


def _without_seed(arguments: Sequence[str]) -> str:
    """The command line as it was given, for "again"; the seed is added where it is known."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--seed", "-s"):
            next(rest, None)
        elif not argument.startswith("--seed="):
            kept.append(argument)
    return shlex.join(["seqstress", *kept])


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit code {returncode}"


def _free_port() -> int:
    return free_ports("127.0.0.1", (None, None, None))[0]


def _outcome_text(code: int) -> str:
    names = {outcome.exit_code: outcome.value for outcome in Outcome}
    return names.get(code, f"exit code {code}")


def _worst(codes: Sequence[int]) -> int:
    """FAIL outweighs bad input, which outweighs UNKNOWN."""
    order = (Outcome.FAIL.exit_code, BAD_INPUT, Outcome.UNKNOWN.exit_code)
    return next((code for code in order if code in codes), max(codes, default=0))


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
