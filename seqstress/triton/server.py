"""The embedded server: a real ``tritonserver`` process that is ready when started and gone when stopped."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from seqstress.errors import PreflightError, ServerError
from seqstress.triton import supervisor
from seqstress.triton.host import free_ports, require_host
from seqstress.triton.releases import Installation, require_option
from seqstress.triton.repository import ModelSpec, require_servable, servable_models, specs_named, write_repository
from seqstress.triton.server_log import ServerLog
from seqstress.triton.staging import Stage, stage

__all__ = ["TritonServer", "free_ports", "serve"]

TAIL_LINES = 30
"""How much of Triton's log an error shows."""
USER_GRACE_S = 8.0
"""What a person's own models get for their ``finalize``: an idle server needs 3 to 4 s to end cleanly."""

_POLL_S = 0.02
_PROBE_TIMEOUT_S = 2.0
_STOP_TIMEOUT_S = 12.0
_PORT_ATTEMPTS = 3


class TritonServer:
    """One tritonserver with the models of ``repository``: a folder, served as it is, or specs of our own.

    Between ``start`` and ``stop`` (or as a context manager) it serves on ``grpc_target``. However this
    process, the server or the supervisor between them ends, no process, shared memory or temporary file stays
    (``supervisor``). Works with and without gevent's monkey-patching: it starts no thread, and every wait is
    bounded. Only the process that started it can stop it; in children that were forked later ``stop`` does
    nothing.
    """

    def __init__(
        self,
        repository: Path | Iterable[ModelSpec],
        *,
        release: str | None = None,
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        host: str = "127.0.0.1",
        grpc_threads: int | None = None,
        log_verbose: int = 0,
        log_path: Path | None = None,
        startup_timeout_s: float = 60.0,
        extra_args: Sequence[str] = (),
    ) -> None:
        self._repository = repository if isinstance(repository, Path) else None
        self._specs = () if isinstance(repository, Path) else tuple(repository)
        self._release = release
        self._fixed_ports = (grpc_port, http_port, metrics_port)
        self._ports = (0, 0, 0)
        self._host = host
        self._grpc_threads = grpc_threads
        self._log_verbose = log_verbose
        self._wanted_log_path = log_path
        self._startup_timeout_s = startup_timeout_s
        self._extra_args = tuple(extra_args)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._pid = 0
        self._folder: Path | None = None
        self._log: ServerLog | None = None
        self._shm_prefix = ""
        self._returncode: int | None = None

    def __repr__(self) -> str:
        state = f"pid {self._pid}, {self.grpc_target}" if self.is_running else "not running"
        return f"<TritonServer {self._release or 'installed release'}: {state}>"

    @property
    def grpc_target(self) -> str:
        """``host:port`` of gRPC, to connect to."""
        return f"{self._reachable_host}:{self._ports[0]}"

    @property
    def http_target(self) -> str:
        """``host:port`` of HTTP."""
        return f"{self._reachable_host}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus would scrape."""
        return f"http://{self._reachable_host}:{self._ports[2]}/metrics"

    @property
    def pid(self) -> int:
        """The tritonserver process, also the id of the process group that holds its model stubs."""
        return self._pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives. Says nothing about its models: a dead stub leaves the server running."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How tritonserver ended, as subprocess says it (-n: by signal n); None before."""
        if self._process is not None and self._returncode is None:
            code = self._process.poll()
            self._returncode = 128 - code if code is not None and code > 128 else code
        return self._returncode

    def wait(self, timeout_s: float) -> int | None:
        """Wait until the server ends by itself: its ``returncode``, or None when it still runs after ``timeout_s``."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        return self.returncode

    @property
    def log_path(self) -> Path | None:
        """Triton's log. Without a ``log_path`` given it goes when the server does, but for ``log_tail``."""
        return self._log.path if self._log else self._wanted_log_path

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of Triton's log, also after the end."""
        return self._log.tail(lines) if self._log else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return once the server and every model of ours is ready.

        Raises PreflightError when this machine, a port or the release cannot do it, and ServerError with the
        tail of Triton's log when the server ended, a model failed to load, or ``startup_timeout_s`` passed.
        """
        if self.is_running:
            raise ServerError("this server is running already")
        installation = require_host(self._release, host=self._host, ports=self._fixed_ports)
        if self._repository is not None and not self._repository.is_dir():
            raise PreflightError(f"the model repository {self._repository} is no folder")
        require_servable(self._specs, self._release)
        if self._grpc_threads is not None:
            require_option(installation, "grpc-infer-thread-count")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._start_once(installation)
            except BaseException as error:
                self.stop(grace_s=0)
                if attempt < _PORT_ATTEMPTS and isinstance(error, ServerError) and self._lost_a_port():
                    continue
                raise
            return

    def stop(self, grace_s: float | None = None) -> None:
        """End the server and everything of it; idempotent, bounded by ``grace_s`` plus some seconds.

        With no grace (the default for our own models) the processes are killed, which takes hundredths of a
        second: close your streams first. A clean end costs over 3 s even when idle, and with one open stream
        the whole grace. A repository of yours gets ``USER_GRACE_S`` by default.
        """
        process = self._process
        if process is None or self._owner != os.getpid():
            return
        if grace_s is None:
            grace_s = USER_GRACE_S if self._repository is not None else 0.0
        try:
            self._tell_supervisor(process, f"{grace_s}\n")
            process.wait(grace_s + _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_TIMEOUT_S)
        finally:
            self._returncode = self.returncode
            self._process = None
            if self._log is not None:
                self._log.close()
            self._clear_after(process)

    def _start_once(self, installation: Installation) -> None:
        token = uuid.uuid4().hex[:12]
        self._returncode, self._pid = None, 0
        self._shm_prefix = f"seqstress-{token}-"
        self._folder = folder = Path(tempfile.mkdtemp(prefix="seqstress-"))
        self._log = log = ServerLog(self._wanted_log_path or folder / "triton.log")
        self._ports = free_ports(self._host, self._fixed_ports)
        self._owner = os.getpid()
        try:
            staged = stage(installation, folder)
            command = self._command(installation, staged, folder)
            self._process = process = self._spawn(command, staged.environment, log.path)
        except BaseException:
            supervisor.remove_folder(folder)
            raise
        assert process.stdout is not None
        self._pid = int(process.stdout.readline() or 0)
        process.stdout.close()
        self._await_ready()

    def _spawn(self, command: list[str], environment: dict[str, str], log_path: Path) -> "subprocess.Popen[bytes]":
        arguments = [str(os.getpid()), self._shm_prefix, str(self._folder), *command]
        with log_path.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._folder,  # the stubs search it for modules before anything else
                start_new_session=True,
            )

    def _command(self, installation: Installation, staged: Stage, folder: Path) -> list[str]:
        repository = self._repository
        if repository is None:
            repository = folder / "models"
            repository.mkdir()
            write_repository(repository, self._specs)
        grpc_port, http_port, metrics_port = self._ports
        command = [
            str(installation.binary),
            f"--model-repository={repository.resolve()}",
            f"--backend-directory={staged.backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            f"--grpc-address={self._host}",
            f"--grpc-port={grpc_port}",
            f"--http-address={self._host}",
            f"--http-port={http_port}",
            f"--metrics-address={self._host}",
            f"--metrics-port={metrics_port}",
            f"--log-verbose={self._log_verbose}",
            f"--exit-timeout-secs={int(USER_GRACE_S)}",
        ]
        if self._repository is None:
            # Our configurations are complete; completing them costs a stub process per model: all took 5.9 s, not 1.3.
            command.append("--disable-auto-complete-config")
        if self._grpc_threads is not None:
            command.append(f"--grpc-infer-thread-count={self._grpc_threads}")
        return [*command, *self._extra_args]

    def _await_ready(self) -> None:
        _, http_port, metrics_port = self._ports
        probes = [
            (http_port, "/v2/health/ready"),
            *((http_port, f"/v2/models/{spec.name}/ready") for spec in self._specs),
            (metrics_port, "/metrics"),
        ]
        deadline = time.monotonic() + self._startup_timeout_s
        while probes:
            ended = not self.is_running
            reason = self._log.fatal_line() if self._log else None
            if reason:  # it would now unload the models that it has, which takes seconds, and end
                raise ServerError(f"tritonserver cannot start: {reason}", self.log_tail())
            if ended:
                raise ServerError(f"tritonserver ended while starting (exit code {self.returncode})", self.log_tail())
            if time.monotonic() > deadline:
                raise ServerError(
                    f"tritonserver was not ready after {self._startup_timeout_s:g} s"
                    " (a model that hangs in its initialize, or whose stub cannot load, never is)",
                    self.log_tail(),
                )
            if self._answers_ok(*probes[0]):
                del probes[0]
            else:
                time.sleep(_POLL_S)

    def _answers_ok(self, port: int, path: str) -> bool:
        connection = http.client.HTTPConnection(self._reachable_host, port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _lost_a_port(self) -> bool:
        """Whether somebody took one of the ports that were free a moment ago."""
        return None in self._fixed_ports and self._log is not None and self._log.tells_of_a_taken_port()

    @staticmethod
    def _tell_supervisor(process: "subprocess.Popen[bytes]", word: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(word.encode())
            process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()

    def _clear_after(self, process: "subprocess.Popen[bytes]") -> None:
        """Do the supervisor's work where it was killed; tritonserver died with it, its stubs did not."""
        if process.returncode is None or process.returncode >= 0:
            return
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        supervisor.remove_shared_memory(self._shm_prefix)
        if self._folder is not None:
            supervisor.remove_folder(self._folder)

    @property
    def _reachable_host(self) -> str:
        return "127.0.0.1" if self._host == "0.0.0.0" else self._host


def serve(
    *,
    models: Iterable[str] | None = None,
    model_repository: Path | None = None,
    release: str | None = None,
    grpc_port: int | None = None,
    http_port: int | None = None,
    metrics_port: int | None = None,
    host: str = "127.0.0.1",
    grpc_threads: int | None = None,
    log_verbose: int = 0,
) -> int:
    """Serve until Ctrl-C or SIGTERM (exit code 0) or until the server dies by itself (1).

    ``models`` are names of ours (None: all that the release can serve); ``model_repository`` is a folder of
    anybody's instead. Raises as ``TritonServer.start`` does, and PreflightError for unknown names.
    """
    if model_repository is not None and models is not None:
        raise PreflightError("--models names models of seqstress, --model-repository a folder of yours: give one")
    specs = servable_models(release) if models is None else specs_named(models)
    server = TritonServer(
        model_repository or specs,
        release=release,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        host=host,
        grpc_threads=grpc_threads,
        log_verbose=log_verbose,
    )
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server:
            print(
                f"serving gRPC {server.grpc_target} HTTP {server.http_target} metrics {server.metrics_url}",
                flush=True,
            )
            while server.wait(timeout_s=60) is None:
                pass
            print(f"tritonserver ended (exit code {server.returncode})\n{server.log_tail()}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
