"""Stands between seqstress and tritonserver: whatever ends, no process, shared memory or file stays.

A tritonserver that dies by a signal leaves model stubs behind that catch SIGTERM and SIGINT and live for
ever, and regions in /dev/shm. So this small process is their ancestor. It ends them all when told to on its
standard input, when that closes, when the process that started it is gone (also by SIGKILL), or when
tritonserver itself ended. Run by its path, on the standard library alone: it starts in a few hundredths of a
second and drags nothing along.

Arguments: pid of the owner, prefix of the shared memory's names, folder to remove, then tritonserver's
command. Standard output gets one line, tritonserver's pid. The exit code is tritonserver's, 128 + n for
signal n.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_S = 0.1
_REAP_S = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = Path("/dev/shm")


def supervise(owner: int, shm_prefix: str, folder: Path, command: list[str]) -> int:
    """Run ``command`` in a process group of its own until it ends or must; then clear everything away."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # Stubs whose server died become our children instead of init's: so we know them, and when the last one is
    # gone.
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    stopped = _StopSignals()
    code = 1
    group: int | None = None
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            process_group=0,
            # Should somebody kill this very process, the server goes too (its stubs fall to the owner).
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
        group = server.pid
        print(server.pid, flush=True)
        sys.stdout.close()
        grace_s = _watch(server, owner, stopped)
        if server.poll() is None and grace_s > 0:
            server.terminate()
            try:
                server.wait(grace_s)
            except subprocess.TimeoutExpired:
                print(f"seqstress: no clean end within {grace_s} s, killing tritonserver", file=sys.stderr)
        if server.poll() is None:
            server.kill()
        code = server.wait()
    finally:
        if group is not None:
            _end_descendants(group)
        remove_shared_memory(shm_prefix)
        remove_folder(folder)
    return code if code >= 0 else 128 - code


def _watch(server: "subprocess.Popen[bytes]", owner: int, stopped: "_StopSignals") -> float:
    """Wait until the server ended or has to; return the seconds that it gets for a clean end."""
    told = ""
    while server.poll() is None and os.getppid() == owner and not stopped:
        # The owner's death is also polled: children that it forked may hold its end of the pipe open.
        if select.select([0], [], [], _POLL_S)[0]:
            told = os.read(0, 64).decode()
            break
    return float(told) if told else 0.0


def _end_descendants(group: int) -> None:
    """Kill the server's group, and what left the group, until no descendant is left: all become ours."""
    deadline = time.monotonic() + _REAP_S
    while time.monotonic() < deadline:
        _kill_group(group)
        for pid in _children():
            _kill(pid)
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            time.sleep(0.005)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN: the group has to do
        return []


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_shared_memory(prefix: str) -> None:
    """Remove the regions whose names start with ``prefix``, which only one server uses."""
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove the server's own folder with all that is in it; symlinks in it are not followed."""
    shutil.rmtree(folder, ignore_errors=True)


class _StopSignals:
    """True once a signal asked for the end; a terminal's Ctrl-C never gets here, this is another session."""

    def __init__(self) -> None:
        self._received = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, *_: object) -> None:
        self._received = True

    def __bool__(self) -> bool:
        return self._received


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
