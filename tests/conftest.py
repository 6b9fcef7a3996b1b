"""Fixtures that several packages' tests share."""

from collections.abc import Iterator

import pytest

from seqstress.triton.host import platform_problems
from seqstress.triton.repository import MODELS
from seqstress.triton.server import TritonServer


@pytest.fixture(scope="session")
def triton_server() -> Iterator[TritonServer]:
    """A real Triton with every shipped model, one for the whole session; tests that use it are marked ``real``.

    Skips only where no wheel of the server fits this Python or platform; whatever else is missing is an error.
    """
    unfit = [problem.sentence for problem in platform_problems() if problem.subject in ("platform", "python")]
    if unfit:
        pytest.skip("; ".join(unfit))
    with TritonServer(MODELS.values()) as server:
        yield server
