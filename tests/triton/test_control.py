"""The control plane over a transport that answers from a table."""

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from seqstress.errors import ConnectError, RpcError
from seqstress.triton.control import NOT_FOUND, UNAVAILABLE, Control, IndexedModel, ServerFacts
from seqstress.verdict.audit import ModelStatistics


class TableTransport:
    """Answers each method with what the table holds: a message, or an error to raise. Remembers what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any, float]] = []

    def unary(self, method: str, request: Any, response_type: type[Any], timeout_s: float) -> Any:
        self.asked.append((method, request, timeout_s))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, response_type)
        return answer


def counted(version: str, success: int, fail: int, batches: dict[int, int]) -> Any:
    statistics = service_pb2.ModelStatistics(name="m", version=version)
    statistics.inference_count = success
    statistics.execution_count = sum(batches.values())
    inference = statistics.inference_stats
    inference.success.count, inference.fail.count = success, fail
    inference.queue.count, inference.compute_infer.count = success + 1, success + 2
    for size, executions in batches.items():
        statistics.batch_stats.add(batch_size=size).compute_infer.count = executions
    return statistics


def test_health_is_what_the_server_says() -> None:
    transport = TableTransport(
        ServerLive=service_pb2.ServerLiveResponse(live=True), ServerReady=service_pb2.ServerReadyResponse(ready=False)
    )
    control = Control(transport)
    assert control.server_live()
    assert not control.server_ready()


def test_a_call_has_the_timeout_that_was_given_or_the_usual_one() -> None:
    transport = TableTransport(ServerLive=service_pb2.ServerLiveResponse(live=True))
    control = Control(transport, timeout_s=3.0)
    control.server_live()
    control.server_live(timeout_s=0.5)
    assert [timeout_s for _, _, timeout_s in transport.asked] == [3.0, 0.5]


def test_metadata_becomes_plain_facts() -> None:
    answer = service_pb2.ServerMetadataResponse(name="triton", version="2.51.0", extensions=["sequence", "statistics"])
    facts = Control(TableTransport(ServerMetadata=answer)).server_metadata()
    assert facts == ServerFacts("triton", "2.51.0", ("sequence", "statistics"))


@pytest.mark.parametrize("code", [NOT_FOUND, UNAVAILABLE])
def test_a_model_that_is_not_there_is_not_ready(code: int) -> None:
    assert not Control(TableTransport(ModelReady=RpcError(code, "unknown model"))).model_ready("m")


def test_other_errors_of_a_readiness_call_are_told() -> None:
    with pytest.raises(RpcError):
        Control(TableTransport(ModelReady=RpcError(13, "internal"))).model_ready("m")


def test_a_server_out_of_reach_is_told() -> None:
    with pytest.raises(ConnectError):
        Control(TableTransport(ServerLive=ConnectError("refused"))).server_live()


def test_statistics_of_one_version_are_its_counters() -> None:
    answer = service_pb2.ModelStatisticsResponse(model_stats=[counted("1", 10, 2, {1: 4, 3: 2})])
    transport = TableTransport(ModelStatistics=answer)
    assert Control(transport).model_statistics("m", "1") == ModelStatistics(
        success=10,
        fail=2,
        inference_count=10,
        execution_count=6,
        queue_count=11,
        compute_infer_count=12,
        batches=((1, 4), (3, 2)),
    )
    ((_, request, _),) = transport.asked
    assert (request.name, request.version) == ("m", "1")


def test_statistics_of_all_versions_are_summed() -> None:
    both = [counted("1", 10, 2, {1: 4, 3: 2}), counted("2", 5, 1, {3: 1, 8: 1})]
    answer = service_pb2.ModelStatisticsResponse(model_stats=both)
    got = Control(TableTransport(ModelStatistics=answer)).model_statistics("m")
    assert (got.success, got.fail, got.execution_count) == (15, 3, 8)
    assert got.batches == ((1, 4), (3, 3), (8, 1))


def test_the_index_is_sorted_by_name() -> None:
    answer = service_pb2.RepositoryIndexResponse()
    answer.models.add(name="b", version="1", state="READY")
    answer.models.add(name="a", state="UNAVAILABLE", reason="unloaded")
    assert Control(TableTransport(RepositoryIndex=answer)).repository_index() == (
        IndexedModel("a", "", "UNAVAILABLE", "unloaded"),
        IndexedModel("b", "1", "READY", ""),
    )
