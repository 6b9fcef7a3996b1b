"""The honest model under every sin: sums per correlation ID, and the START error where it is due."""

import struct
from typing import Any

from tritonclient.grpc import service_pb2

from seqstress.protocol import START_ERROR
from tests.e2e.hostile.control_plane import DTYPES, dtype_of

_LENGTH = struct.Struct("<I")


class Accumulator:
    """All sequences of all models of one server."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], float] = {}

    def serve(self, request: Any) -> Any:
        """The right ModelStreamInferResponse to a ModelInferRequest."""
        parameters = request.parameters
        key = (request.model_name, parameters["sequence_id"].int64_param)
        is_start = parameters["sequence_start"].bool_param
        if not is_start and key not in self._sums:
            text = f"inference request for sequence {key[1]} to model '{key[0]}' {START_ERROR} on the first request"
            return refusal(request.id, text)
        dtype = dtype_of(request.model_name)
        total = _value(dtype, request.raw_input_contents[0]) + (0 if is_start else self._sums[key])
        if dtype == "INT32":
            total = (int(total) + 2**31) % 2**32 - 2**31
        self._sums[key] = total
        if parameters["sequence_end"].bool_param:
            del self._sums[key]
        return answer(request, raw(dtype, total))


def raw(dtype: str, value: float) -> bytes:
    """The raw bytes of a tensor of one element."""
    if dtype == "BYTES":
        digits = b"%d" % value
        return _LENGTH.pack(len(digits)) + digits
    return struct.pack("<" + DTYPES[dtype], value)


def answer(request: Any, contents: bytes) -> Any:
    """An answer with the output ``contents``."""
    dtype = dtype_of(request.model_name)
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    response.outputs.add(name="OUTPUT", datatype=dtype, shape=[1, 1])
    response.raw_output_contents.append(contents)
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def refusal(request_id: str, text: str, model: str = "") -> Any:
    """An in-stream error."""
    response = service_pb2.ModelInferResponse(id=request_id, model_name=model)
    return service_pb2.ModelStreamInferResponse(error_message=text, infer_response=response)


def _value(dtype: str, contents: bytes) -> float:
    if dtype == "BYTES":
        return int(contents[_LENGTH.size :])
    value: float = struct.unpack("<" + DTYPES[dtype], contents)[0]
    return value
