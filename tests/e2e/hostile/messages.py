"""A gRPC server whose sins are in what it says. The model's name chooses the sin; each model keeps count of its sins.

A sin strikes every third step of a stream, so that each stream shows right and wrong answers. On the model ``chaos``
each strike is the next of all sins that leave the stream alive.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from seqstress.protocol import START_ERROR
from tests.e2e.hostile.accumulator import Accumulator, answer, raw, refusal
from tests.e2e.hostile.control_plane import ControlPlane, dtype_of

STRIKE = 3
FLOOD = 500
WILD = "[/red] \x1b[31m\x07 <script>alert(1)</script> \u202e {0} %s \x00" + "x" * 100_000

Sin = Callable[[Any, Any], list[bytes]]


def _with(change: Callable[[Any], Any]) -> Sin:
    """A sin that changes the right answer."""

    def sin(_request: Any, right: Any) -> list[bytes]:
        change(right)
        return [right.SerializeToString()]

    return sin


def _instead(make: Callable[[Any], Any]) -> Sin:
    """A sin that says something else instead."""
    return lambda request, _right: [make(request).SerializeToString()]


def _wrong_id(right: Any) -> None:
    right.infer_response.id += "9"


def _empty_id(right: Any) -> None:
    right.infer_response.id = ""


def _wrong_model(right: Any) -> None:
    right.infer_response.model_name = "another"


def _extra_output(right: Any) -> None:
    right.infer_response.outputs.add(name="MORE", datatype="INT32", shape=[1, 1])
    right.infer_response.raw_output_contents.append(raw("INT32", 1))


def _wrong_name(right: Any) -> None:
    right.infer_response.outputs[0].name = "PUTOUT"


def _wrong_dtype(right: Any) -> None:
    right.infer_response.outputs[0].datatype = "INT64"


def _wrong_shape(right: Any) -> None:
    right.infer_response.outputs[0].shape[:] = [2, 1]


def _short(right: Any) -> None:
    right.infer_response.raw_output_contents[0] = b"\0\0\0"


SINS: dict[str, Sin] = {
    "healthy": lambda _, right: [right.SerializeToString()],
    "missing_error": _instead(lambda request: answer(request, raw("INT32", 1))),
    "duplicate": lambda _, right: [right.SerializeToString()] * 2,
    "flood": lambda _, right: [right.SerializeToString()] * FLOOD,
    "drop": lambda _request, _right: [],
    "wrong_id": _with(_wrong_id),
    "empty_id": _with(_empty_id),
    "wrong_model": _with(_wrong_model),
    "extra_output": _with(_extra_output),
    "wrong_name": _with(_wrong_name),
    "wrong_dtype": _with(_wrong_dtype),
    "wrong_shape": _with(_wrong_shape),
    "short": _with(_short),
    "no_output": _instead(
        lambda request: service_pb2.ModelStreamInferResponse(
            infer_response=service_pb2.ModelInferResponse(id=request.id, model_name=request.model_name)
        )
    ),
    "wrong_value": _instead(lambda request: answer(request, raw("INT32", -77))),
    "error": _instead(lambda request: refusal(request.id, "boom", request.model_name)),
    "wild_error": _instead(lambda request: refusal(request.id, WILD, request.model_name)),
    "start_error": _instead(lambda request: refusal(request.id, f"you {START_ERROR}, or else")),
    "error_without_id": _instead(lambda _: refusal("", "boom")),
    "empty_message": lambda _request, _right: [b""],
    "no_protobuf": lambda _request, _right: [b"\xff" * 40],
    "fp32_nan": _instead(lambda request: answer(request, raw("FP32", float("nan")))),
    "fp32_inf": _instead(lambda request: answer(request, raw("FP32", float("inf")))),
    "bytes_huge": _instead(lambda request: answer(request, b"\x20\xa1\x07\x00" + b"9" * 500_000)),
    "bytes_letters": _instead(lambda request: answer(request, b"\x03\x00\x00\x00abc")),
}
CHAOS = tuple(
    name for name in SINS if dtype_of(name) == "INT32" and name not in ("flood", "wild_error", "missing_error")
)


class Infer:
    """ModelStreamInfer of every model."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._accumulator = Accumulator()
        self._chaos = cycle(CHAOS)
        self.deeds: Counter[str] = Counter()
        self._elsewhere: SimpleQueue[bytes] = SimpleQueue()
        self._held: dict[str, bytes] = {}

    def stream(self, requests: Iterator[Any], context: Any) -> Iterator[bytes]:
        """One stream, from its first request to its end."""
        for number, request in enumerate(requests, start=1):
            model = request.model_name
            right = self._accumulator.serve(request)
            if not right.error_message:
                self._control.served[model] += 1
            if model == "reorder":
                yield from self._reordered(request, right)
                continue
            if model == "other_stream" and not self._elsewhere.empty():
                yield self._elsewhere.get()
            if model == "slow":
                time.sleep(0.02)
            if number % STRIKE or model == "slow":
                yield right.SerializeToString()
                continue
            sin = next(self._chaos) if model == "chaos" else model
            self.deeds[sin] += 1
            if sin == "status":
                context.abort(grpc.StatusCode.INTERNAL, "enough of you")
            elif sin == "completed":
                return
            elif sin == "other_stream":
                self._elsewhere.put(right.SerializeToString())
            else:
                yield from SINS[sin](request, right)

    def _reordered(self, request: Any, right: Any) -> Iterator[bytes]:
        """The second step of each sequence is answered before the first."""
        prefix, _, number = request.id.rpartition(".")
        if number == "0" and not request.parameters["sequence_end"].bool_param:
            self._held[prefix] = right.SerializeToString()
            return
        yield right.SerializeToString()
        if held := self._held.pop(prefix, None):
            self.deeds["reorder"] += 1
            yield held


def _handlers(control: ControlPlane, infer: Infer) -> Any:
    def unary(method: str) -> Any:
        return lambda request, _context: control.answer(method, request)

    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            unary(method), request_deserializer=kind.FromString, response_serializer=lambda m: m.SerializeToString()
        )
        for method, kind in control.requests().items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        infer.stream, request_deserializer=service_pb2.ModelInferRequest.FromString, response_serializer=bytes
    )
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)


def main() -> None:
    """Serve until stdin ends."""
    control = ControlPlane()
    infer = Infer(control)
    server = grpc.server(ThreadPoolExecutor(64), handlers=[_handlers(control, infer)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"messages": port}), flush=True)
    over = Event()
    Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    over.wait()
    server.stop(0).wait(2)
    print(json.dumps(infer.deeds), flush=True)


if __name__ == "__main__":
    main()
