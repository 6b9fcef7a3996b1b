"""What several packages' tests share."""

from collections.abc import Iterator, Sequence

import pytest

from seqstress.triton.platforms import platform_problems
from seqstress.triton.repository import MODELS
from seqstress.triton.server import TritonServer


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip what needs the real server only where no wheel of it fits this Python or platform; whatever else is
    missing is an error."""
    unfit = [problem.sentence for problem in platform_problems() if problem.subject in ("platform", "python")]
    for item in items if unfit else ():
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="; ".join(unfit)))


@pytest.fixture(scope="session")
def triton_server() -> Iterator[TritonServer]:
    """A real Triton with every shipped model, one for the whole session; tests that use it are marked ``real``."""
    with TritonServer(MODELS.values()) as server:
        yield server
