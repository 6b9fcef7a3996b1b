"""The embedded server with real processes: it serves right, says why it cannot, and leaves nothing behind."""

import http.client
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import psutil
import pytest
import tritonclient.grpc as stock

from seqstress.errors import PreflightError, ServerError
from seqstress.protocol import START_ERROR, Dtype
from seqstress.triton import server as server_module
from seqstress.triton.repository import MODELS, ModelSpec, Strategy, specs_named, write_repository
from seqstress.triton.server import TritonServer, free_ports

pytestmark = pytest.mark.real

GONE_S = 15.0
"""Bound of the waits for an end; each is over as soon as what it waits for happened."""


class Step(NamedTuple):
    corrid: int
    value: int
    start: bool = False
    end: bool = False


def sequence(corrid: int, values: Sequence[int]) -> list[Step]:
    last = len(values) - 1
    return [Step(corrid, value, index == 0, index == last) for index, value in enumerate(values)]


class StockClient:
    """Sends steps pipelined on one stream of the stock tritonclient: none of our wire is involved."""

    NUMPY: ClassVar = {Dtype.INT32: np.int32, Dtype.INT64: np.int64, Dtype.FP32: np.float32, Dtype.FP64: np.float64}

    def __init__(self, target: str, spec: ModelSpec) -> None:
        self.target, self.spec = target, spec

    def answers(self, steps: Sequence[Step]) -> list[Any]:
        replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with stock.InferenceServerClient(self.target) as client:
            client.start_stream(lambda result, error: replies.put((result, error)))
            for step in steps:
                client.async_stream_infer(
                    self.spec.name,
                    [self._input(step.value)],
                    sequence_id=step.corrid,
                    sequence_start=step.start,
                    sequence_end=step.end,
                )
            answers = [self._read(*replies.get(timeout=20)) for _ in steps]
            client.stop_stream()
        return answers

    def _input(self, value: int) -> stock.InferInput:
        dtype, shape = self.spec.dtype, self.spec.input_shape
        array = (
            np.array([str(value).encode()], object) if dtype is Dtype.BYTES else np.array([value], self.NUMPY[dtype])
        )
        made = stock.InferInput("INPUT", list(shape), dtype.value)
        made.set_data_from_numpy(array.reshape(shape))
        return made

    def _read(self, result: Any, error: Any) -> Any:
        if error is not None:
            return str(error)
        output = result.get_output("OUTPUT")
        assert (output.datatype, tuple(output.shape)) == (self.spec.dtype.value, self.spec.input_shape)
        return int(result.as_numpy("OUTPUT").flat[0])


class Traces(NamedTuple):
    """All that one running server has on this machine, found from outside by its process id."""

    processes: list[psutil.Process]
    shm_prefix: str
    folder: Path

    @classmethod
    def of(cls, pid: int) -> "Traces":
        supervisor = psutil.Process(pid).parent()
        assert supervisor is not None
        arguments = supervisor.cmdline()
        place = next(index for index, word in enumerate(arguments) if word.endswith("supervisor.py"))
        found = cls(
            [supervisor, *supervisor.children(recursive=True)], arguments[place + 2], Path(arguments[place + 3])
        )
        assert len(found.processes) >= 3 and found.regions() and found.folder.is_dir(), "nothing to leave behind"
        return found

    @property
    def supervisor(self) -> psutil.Process:
        return self.processes[0]

    @property
    def stubs(self) -> list[psutil.Process]:
        return self.processes[2:]

    def regions(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{self.shm_prefix}*"))

    def assert_gone(self) -> None:
        _, alive = psutil.wait_procs(self.processes, timeout=GONE_S)
        assert alive == []
        assert self.regions() == []
        assert not self.folder.exists()


@pytest.fixture
def server() -> Iterator[TritonServer]:
    with TritonServer(specs_named(["direct"])) as running:
        yield running


@pytest.fixture
def ids() -> Iterator[int]:
    """Correlation IDs that no other test of this session uses."""
    return itertools.count(time.time_ns() & 0x7FFF_FFFF_FFFF_0000)


class TestModels:
    """Every shipped model, judged by hand-made expectations."""

    @pytest.fixture(params=MODELS.values(), ids=lambda spec: spec.name)
    def client(self, request: pytest.FixtureRequest, triton_server: TritonServer) -> StockClient:
        return StockClient(triton_server.grpc_target, request.param)

    def test_sums_up_wraps_around_and_resets(self, client: StockClient, ids: Iterator[int]) -> None:
        one = next(ids)
        assert client.answers(sequence(one, [5, 6, -7])) == [5, 11, 4]
        assert client.answers(sequence(one, [-5])) == [-5]
        left_open = [Step(one, 5, start=True), Step(one, 6)]
        assert client.answers([*left_open, *sequence(one, [7, 1])]) == [5, 11, 7, 8]
        assert START_ERROR in client.answers([Step(one, 1)])[0]
        highest = {
            Dtype.INT32: (2**31 - 1, -(2**31)),
            Dtype.INT64: (2**63 - 1, -(2**63)),
            Dtype.FP32: (2**23, 2**23 + 1),
            Dtype.FP64: (2**52, 2**52 + 1),
            Dtype.BYTES: (10**40, 10**40 + 1),
        }[client.spec.dtype]
        assert client.answers(sequence(one, [highest[0], 1])) == list(highest)

    def test_keeps_parallel_sequences_apart(self, client: StockClient, ids: Iterator[int]) -> None:
        def run(values: list[int]) -> None:
            for _ in range(3):
                assert client.answers(sequence(next(ids), values)) == list(itertools.accumulate(values))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(run, [list(range(n, n + 5 + n)) for n in range(6)]))

    @pytest.mark.parametrize(
        "client",
        [spec for spec in MODELS.values() if spec.strategy is Strategy.DIRECT],
        indirect=True,
        ids=lambda spec: spec.name,
    )
    def test_per_slot_state_survives_an_id_reused_at_once(self, client: StockClient, ids: Iterator[int]) -> None:
        one = next(ids)
        steps = [*sequence(one, [1, 1]), *sequence(one, [5, 5])] * 10
        assert client.answers(steps) == [1, 2, 5, 10] * 10


class TestRunning:
    def test_serves_only_on_loopback_and_on_free_ports(self, triton_server: TritonServer) -> None:
        listening = {c.laddr for c in psutil.Process(triton_server.pid).net_connections() if c.status == "LISTEN"}
        assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        ports = {address.port for address in listening}
        metrics_port = int(triton_server.metrics_url.split(":")[2].split("/")[0])
        assert {int(triton_server.grpc_target[10:]), int(triton_server.http_target[10:]), metrics_port} == ports

    def test_its_metrics_are_its_own(self, triton_server: TritonServer) -> None:
        connection = http.client.HTTPConnection(triton_server.metrics_url.split("/")[2], timeout=5)
        connection.request("GET", "/metrics")
        assert b'model="l0_1x4"' in connection.getresponse().read()
        connection.close()

    def test_two_servers_run_side_by_side(self, triton_server: TritonServer, server: TritonServer) -> None:
        assert server.pid != triton_server.pid
        assert server.is_running and triton_server.is_running

    def test_it_tells_itself(self, server: TritonServer) -> None:
        assert repr(server) == f"<TritonServer installed release: pid {server.pid}, {server.grpc_target}>"
        assert "Started GRPCInferenceService" in server.log_tail()
        assert server.returncode is None
        with pytest.raises(ServerError, match="running already"):
            server.start()

    def test_a_persons_repository_is_served_and_never_written_to(self, tmp_path: Path) -> None:
        write_repository(tmp_path, specs_named(["nobatch"]))
        before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
        with TritonServer(tmp_path) as server:
            client = StockClient(server.grpc_target, MODELS["nobatch"])
            assert client.answers(sequence(1, [1, 2])) == [1, 3]
        assert server.returncode == 0, "its models get a clean end"
        assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before

    def test_it_runs_under_gevents_monkey_patching(self) -> None:
        done = run_python(
            "from gevent import monkey; monkey.patch_all()",
            "from seqstress.triton.repository import specs_named",
            "from seqstress.triton.server import TritonServer",
            "with TritonServer(specs_named(['direct'])) as server: print(server.is_running)",
            "print(server.returncode)",
        )
        assert done.stdout.split() == ["True", "-9"]


class TestLeavesNothing:
    """However the end comes: no process, no shared memory, no file."""

    def test_stopped(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        server.stop()
        traces.assert_gone()
        assert (server.is_running, server.returncode) == (False, -signal.SIGKILL)
        assert "Started GRPCInferenceService" in server.log_tail()
        server.stop()

    def test_stopped_with_grace(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        server.stop(grace_s=10)
        traces.assert_gone()
        assert server.returncode == 0

    def test_stopped_while_it_hangs(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        for process in traces.processes[1:]:
            process.suspend()
        server.stop(grace_s=0.2)
        traces.assert_gone()

    def test_the_server_was_killed(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(GONE_S) == server.returncode == -signal.SIGKILL
        assert not server.is_running
        traces.assert_gone()

    def test_the_supervisor_was_killed(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        traces.supervisor.kill()
        server.stop()
        traces.assert_gone()

    def test_the_supervisor_was_terminated(self, server: TritonServer) -> None:
        traces = Traces.of(server.pid)
        traces.supervisor.terminate()
        traces.assert_gone()

    def test_a_forked_child_cannot_stop_it(self, server: TritonServer) -> None:
        child = os.fork()
        if child == 0:
            try:
                server.stop()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert server.is_running

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_the_owner_was_killed(self, end: signal.Signals) -> None:
        with owner() as process:
            traces = Traces.of(first_number(process))
            process.send_signal(end)
            traces.assert_gone()

    def test_the_owner_was_killed_but_its_forks_live_on(self) -> None:
        with owner("import os; os.fork() or time.sleep(60)") as process:
            traces = Traces.of(first_number(process))
            (fork,) = (child for child in psutil.Process(process.pid).children() if child != traces.supervisor)
            process.kill()
            traces.assert_gone()
            fork.kill()

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
    def test_serving_was_interrupted(self, end: signal.Signals) -> None:
        with python("from seqstress.triton.server import serve", "sys.exit(serve(models=['direct']))") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving gRPC 127.0.0.1:")
            (supervisor,) = psutil.Process(process.pid).children()
            traces = Traces.of(supervisor.children()[0].pid)
            process.send_signal(end)
            assert process.wait(GONE_S) == 0
            traces.assert_gone()

    def test_serving_ends_when_the_server_dies(self) -> None:
        with python("from seqstress.triton.server import serve", "sys.exit(serve(models=['direct']))") as process:
            assert process.stdout is not None and process.stdout.readline()
            (supervisor,) = psutil.Process(process.pid).children()
            supervisor.children()[0].kill()
            assert process.wait(GONE_S) == 1


class TestRefusals:
    """It says why it cannot start, at once, and nothing is left of the attempt."""

    @pytest.fixture(autouse=True)
    def no_traces(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        children = set(psutil.Process().children())
        yield
        assert list(scratch.iterdir()) == []
        assert set(psutil.Process().children()) <= children

    def broken(self, directory: Path, initialize: str) -> Path:
        """A repository with a model whose ``initialize`` is this, beside a healthy one."""
        source = directory / "broken.py"
        source.write_text(f"class TritonPythonModel:\n    def initialize(self, args):\n        {initialize}\n")
        repository = directory / "repository"
        write_repository(repository, [*specs_named(["direct"]), ModelSpec("broken", source=source)])
        return repository

    def test_a_model_that_cannot_load_is_told_with_its_reason(self, tmp_path: Path) -> None:
        server = TritonServer(self.broken(tmp_path, "raise RuntimeError('no luck')"))
        with pytest.raises(ServerError, match=r"failed to load 'broken'.*RuntimeError: no luck") as error:
            server.start()
        assert "server.cc" in error.value.log_tail
        assert not server.is_running

    def test_a_configuration_that_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        write_repository(tmp_path / "r", specs_named(["direct"]))
        with (tmp_path / "r" / "direct" / "config.pbtxt").open("a") as config:
            config.write("no_such_field: 1\n")
        with pytest.raises(ServerError, match="Poll failed for model directory 'direct'"):
            TritonServer(tmp_path / "r").start()

    def test_a_model_that_hangs_ends_at_the_timeout(self, tmp_path: Path) -> None:
        server = TritonServer(self.broken(tmp_path, "import time; time.sleep(600)"), startup_timeout_s=3)
        with pytest.raises(ServerError, match="not ready after 3 s"):
            server.start()
        assert not server.is_running

    def test_a_taken_port_is_told_before_anything_starts(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(PreflightError, match=f"port {taken.getsockname()[1]} "):
                TritonServer(specs_named(["direct"]), grpc_port=taken.getsockname()[1]).start()

    @pytest.mark.parametrize("which", [0, 1, 2], ids=["grpc", "http", "metrics"])
    def test_a_free_port_that_is_snatched_away_is_replaced(self, which: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            attempts = snatch(which, taken.getsockname()[1])
            monkeypatch.setattr(server_module, "free_ports", attempts)
            with TritonServer(specs_named(["direct"])) as server:
                assert server.is_running

    def test_an_unknown_option_is_told(self) -> None:
        with pytest.raises(ServerError, match="unrecognized option '--no-such-option=1'"):
            TritonServer(specs_named(["direct"]), extra_args=["--no-such-option=1"]).start()

    @pytest.mark.parametrize("threads", [128, -1, 0, 1, 129])
    def test_grpc_threads_are_no_option_of_this_release(self, threads: int) -> None:
        # 2.51 would refuse any number, good or bad: that must not pass for the refusal of a bad one.
        with pytest.raises(PreflightError, match="no option --grpc-infer-thread-count"):
            TritonServer(specs_named(["direct"]), grpc_threads=threads).start()

    def test_a_repository_that_is_no_folder_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(PreflightError, match="nowhere is no folder"):
            TritonServer(tmp_path / "nowhere").start()


def snatch(which: int, taken: int) -> Callable[..., tuple[int, int, int]]:
    """``free_ports``, but at the first call one of the ports is taken by the time that the server wants it."""
    calls = itertools.count()

    def choose(*arguments: Any) -> tuple[int, int, int]:
        ports = list(free_ports(*arguments))
        if next(calls) == 0:
            ports[which] = taken
        return ports[0], ports[1], ports[2]

    return choose


def python(*lines: str) -> "subprocess.Popen[str]":
    """A Python process of its own session that runs these lines."""
    program = "\n".join(["import sys, time", *lines])
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True)


def run_python(*lines: str) -> "subprocess.CompletedProcess[str]":
    with python(*lines) as process:
        output, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def owner(then: str = "time.sleep(60)") -> "subprocess.Popen[str]":
    """A process that starts a server, prints its id and goes on with ``then``."""
    return python(
        "from seqstress.triton.repository import specs_named",
        "from seqstress.triton.server import TritonServer",
        "server = TritonServer(specs_named(['direct']))",
        "server.start()",
        "print(server.pid, flush=True)",
        then,
        "time.sleep(60)",
    )


def first_number(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())
