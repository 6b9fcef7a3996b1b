"""Triton's control plane: what a server and a model say of themselves."""

from collections import Counter
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from seqstress.errors import RpcError
from seqstress.verdict.audit import ModelStatistics

NOT_FOUND = 5
UNIMPLEMENTED = 12
UNAVAILABLE = 14

M = TypeVar("M", bound=Message)


class UnaryCaller(Protocol):
    """The part of a transport that makes unary calls."""

    def unary(self, method: str, request: Message, response_type: type[M], timeout_s: float) -> M:
        """Call a method of ``inference.GRPCInferenceService``. Raises RpcError and ConnectError."""


class ServerFacts(NamedTuple):
    """What a server says of itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


class IndexedModel(NamedTuple):
    """A model of the server's repository, loaded or not."""

    name: str
    version: str
    state: str
    """READY, UNAVAILABLE, LOADING, UNLOADING; empty where it was never loaded."""
    reason: str
    """Why it is in that state, where the server says so."""


class Control:
    """Asks one server about itself. Each call raises RpcError or ConnectError, and none waits longer than its time."""

    __slots__ = ("_timeout_s", "_transport")

    def __init__(self, transport: UnaryCaller, timeout_s: float = 5.0) -> None:
        self._transport = transport
        self._timeout_s = timeout_s

    def server_live(self, timeout_s: float | None = None) -> bool:
        """Whether the server answers at all."""
        request = service_pb2.ServerLiveRequest()
        return bool(self._ask("ServerLive", request, service_pb2.ServerLiveResponse, timeout_s).live)

    def server_ready(self, timeout_s: float | None = None) -> bool:
        """Whether the server says that all its models are ready (2.51 goes on saying so when a model's stub dies)."""
        request = service_pb2.ServerReadyRequest()
        return bool(self._ask("ServerReady", request, service_pb2.ServerReadyResponse, timeout_s).ready)

    def model_ready(self, name: str, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether the model takes requests; false for one that does not exist."""
        request = service_pb2.ModelReadyRequest(name=name, version=version)
        try:
            return bool(self._ask("ModelReady", request, service_pb2.ModelReadyResponse, timeout_s).ready)
        except RpcError as error:
            if error.code in (NOT_FOUND, UNAVAILABLE):
                return False
            raise

    def server_metadata(self) -> ServerFacts:
        """Name, version and protocol extensions."""
        request = service_pb2.ServerMetadataRequest()
        answer = self._ask("ServerMetadata", request, service_pb2.ServerMetadataResponse)
        return ServerFacts(answer.name, answer.version, tuple(answer.extensions))

    def model_config(self, name: str, version: str = "") -> Any:
        """The model's ``inference.ModelConfig`` with the server's defaults filled in."""
        request = service_pb2.ModelConfigRequest(name=name, version=version)
        return self._ask("ModelConfig", request, service_pb2.ModelConfigResponse).config

    def model_statistics(self, name: str, version: str = "") -> ModelStatistics:
        """The model's counters, summed over its versions where ``version`` is empty."""
        request = service_pb2.ModelStatisticsRequest(name=name, version=version)
        versions = self._ask("ModelStatistics", request, service_pb2.ModelStatisticsResponse).model_stats
        counted = [statistics.inference_stats for statistics in versions]
        batches: Counter[int] = Counter()
        for statistics in versions:
            for batch in statistics.batch_stats:
                batches[batch.batch_size] += batch.compute_infer.count
        return ModelStatistics(
            success=sum(inference.success.count for inference in counted),
            fail=sum(inference.fail.count for inference in counted),
            inference_count=sum(statistics.inference_count for statistics in versions),
            execution_count=sum(statistics.execution_count for statistics in versions),
            queue_count=sum(inference.queue.count for inference in counted),
            compute_infer_count=sum(inference.compute_infer.count for inference in counted),
            batches=tuple(sorted(batches.items())),
        )

    def repository_index(self) -> tuple[IndexedModel, ...]:
        """Every model that the server knows of, in the order of their names."""
        request = service_pb2.RepositoryIndexRequest()
        answer = self._ask("RepositoryIndex", request, service_pb2.RepositoryIndexResponse)
        return tuple(
            sorted(IndexedModel(model.name, model.version, model.state, model.reason) for model in answer.models)
        )

    def _ask(self, method: str, request: Any, response_type: Any, timeout_s: float | None = None) -> Any:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        return cast(Any, self._transport.unary(method, request, response_type, limit_s))
