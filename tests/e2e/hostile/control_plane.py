"""What a hostile server says of itself and of its model, so that it passes for a Triton; and its honest counters."""

from collections import Counter
from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

SLOTS = 64
"""So many that nothing that times out can be laid to a backlog."""
DTYPES = {"INT32": "i", "FP32": "f", "BYTES": ""}
"""With the format of one element; a model's name begins with its dtype's, INT32 where it names none."""


def dtype_of(model: str) -> str:
    """The dtype of a model, by its name."""
    first = model.partition("_")[0].upper()
    return first if first in DTYPES else "INT32"


class ControlPlane:
    """Answers unary calls by their method's name. Any model exists; its statistics are those of ``served``."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        """Requests that a model answered with an output or with an error of its own."""

    def answer(self, method: str, request: Any) -> Any:
        """The answer to a call."""
        return getattr(self, "_" + method)(request)

    def requests(self) -> dict[str, Any]:
        """The methods that it knows, with the type of their request."""
        names = (name[1:] for name in vars(ControlPlane) if name[0] == "_" and name[1:2].isupper())
        return {name: getattr(service_pb2, f"{name}Request") for name in names}

    def _ServerLive(self, _request: Any) -> Any:  # noqa: N802 - the names of the protocol
        return service_pb2.ServerLiveResponse(live=True)

    def _ServerReady(self, _request: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    def _ModelReady(self, _request: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    def _ServerMetadata(self, _request: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="hostile", version="0")

    def _ModelConfig(self, request: Any) -> Any:  # noqa: N802
        dtype = dtype_of(request.name)
        tensor_type = {"BYTES": "TYPE_STRING"}.get(dtype, f"TYPE_{dtype}")
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=SLOTS)
        config.input.add(name="INPUT", data_type=tensor_type, dims=[1])
        config.output.add(name="OUTPUT", data_type=tensor_type, dims=[1])
        config.instance_group.add(count=1)
        config.sequence_batching.direct.SetInParent()
        config.sequence_batching.max_sequence_idle_microseconds = 1_000_000
        return service_pb2.ModelConfigResponse(config=config)

    def _ModelStatistics(self, request: Any) -> Any:  # noqa: N802
        count = self.served[request.name]
        statistics = service_pb2.ModelStatistics(
            name=request.name, version="1", inference_count=count, execution_count=count
        )
        for duration in ("success", "queue", "compute_infer"):
            getattr(statistics.inference_stats, duration).count = count
        statistics.batch_stats.add(batch_size=1).compute_infer.count = count
        return service_pb2.ModelStatisticsResponse(model_stats=[statistics])
