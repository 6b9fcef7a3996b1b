"""What the log of a starting server says, and what it does not."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seqstress.triton.server_log import ServerLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ServerLog]:
    with closing(ServerLog(tmp_path / "server.log")) as log:
        yield log


@pytest.mark.parametrize(
    "line",
    [
        "E1122 12:30:56.768046 24880 model_lifecycle.cc:654] \"failed to load 'm' version 1: Internal: no luck\"",
        "E1122 12:30:56.768046 24880 model_repository_manager.cc:1460] \"Poll failed for model directory 'm': no\"",
        'E1122 12:30:56.796088 24887 main.cc:245] "failed to start GRPC service: Unavailable"',
        "error: creating server: Internal - failed to load all models",
        "/opt/tritonserver/bin/tritonserver: unrecognized option '--nope'",
    ],
)
def test_tritons_own_error_lines_say_why_it_cannot_start(log: ServerLog, line: str) -> None:
    log.path.write_text(f"I1122 12:30:55.0 1 main.cc:1] up\n{line}\nI1122 12:30:57.0 1 server.cc:1] unloading\n")
    assert log.fatal_line() == line


@pytest.mark.parametrize(
    "line",
    [
        "failed to load 'weights.bin', taking the defaults",
        "my model: failed to start its cache, goes on without",
        "I1122 12:30:56.796088 24887 model.cc:1] \"Warning: failed to load 'tokenizer'\"",
        "main.py: unrecognized option 'x'",
        "could not log; error: creating server",
    ],
)
def test_what_a_model_prints_ends_no_start(log: ServerLog, line: str) -> None:
    log.path.write_text(f"{line}\n")
    assert log.fatal_line() is None
