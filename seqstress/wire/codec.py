"""Steps to bytes and back: ModelInferRequest out, ModelStreamInferResponse in.

Between two requests of one model only the request id, the correlation ID, the flags and the value differ, and
between two answers only the request id and the value. So both directions have a fast path that fills in or
checks a template, and beside it the plain path over the protobuf, which it must equal: whatever differs from
the template in a single byte is left to the plain one.

The template of answers is what Triton 2.51 sends: the fields in the order of their numbers, each once, the
output in ``raw_output_contents``, and the parameter ``triton_final_response`` on every answer of a stream,
decoupled or not. Requests ask for no particular output, as in Triton's own sequence tests: whatever the model
returns is seen.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception by its right name

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from seqstress.protocol import Binding, Call, CorrelationId, Dtype, Reply, ReplyKind, TensorSpec, Value
from seqstress.wire.framing import PREFIX

_FORMATS = {Dtype.INT32: "i", Dtype.INT64: "q", Dtype.FP32: "f", Dtype.FP64: "d"}
_CONTENTS = {
    Dtype.INT32: "int_contents",
    Dtype.INT64: "int64_contents",
    Dtype.FP32: "fp32_contents",
    Dtype.FP64: "fp64_contents",
    Dtype.BYTES: "bytes_contents",
}
_DECIMAL = re.compile(rb"-?[0-9]{1,1000}")
_ELEMENT_LENGTH = Struct("<I")
_FINAL_PARAMETER = "triton_final_response"


class _MalformedOutputError(Exception):
    """The output is not what the binding says; the text says what was seen and what was expected."""


@lru_cache(maxsize=1024)
def _varint(number: int) -> bytes:
    """``number`` >= 0 as protobuf's base-128 varint."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _parameter(key: str, parameter: service_pb2.InferParameter) -> bytes:
    """One entry of the ``parameters`` map, as field 4 of a request or an answer."""
    body: bytes = parameter.SerializeToString()
    entry = b"\x0a" + _varint(len(key)) + key.encode() + b"\x12" + _varint(len(body)) + body
    return b"\x22" + _varint(len(entry)) + entry


def _bool_parameter(key: str, flag: bool) -> bytes:
    return _parameter(key, service_pb2.InferParameter(bool_param=flag))


@lru_cache(maxsize=16384)
def _sequence_id(correlation_id: CorrelationId) -> bytes:
    """The parameter ``sequence_id``; Triton takes it as int64 or string, never as uint64."""
    if isinstance(correlation_id, str):
        parameter = service_pb2.InferParameter(string_param=correlation_id)
    else:
        parameter = service_pb2.InferParameter(int64_param=correlation_id)
    return _parameter("sequence_id", parameter)


_FLAGS = {
    (start, end): _bool_parameter("sequence_start", start) + _bool_parameter("sequence_end", end)
    for start in (False, True)
    for end in (False, True)
}
"""As the stock client does, both flags are always said, set or not."""
_FLAGS_SIZE = len(_FLAGS[True, True])
_ANSWER_IS_FINAL = _bool_parameter(_FINAL_PARAMETER, True)
_ANSWER_IS_NOT_FINAL = _bool_parameter(_FINAL_PARAMETER, False)


class Codec:
    """Encodes the calls and decodes the answers of one :class:`Binding`; shared by all streams of it."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        request = service_pb2.ModelInferRequest(model_name=binding.model, model_version=binding.version)
        self._request_head = request.SerializeToString() + b"\x1a"
        request = service_pb2.ModelInferRequest()
        if binding.decoupled:
            request.parameters["triton_enable_empty_final_response"].bool_param = True
        request.inputs.add(name=binding.input.name, datatype=binding.input.dtype.value, shape=binding.input.shape)
        self._request_tail = request.SerializeToString()
        self._request_size = len(self._request_head) + _FLAGS_SIZE + len(self._request_tail)
        self._pack = _packer(binding.input)
        self._unpack = _unpacker(binding.output)

        self._raw_size = _raw_size(binding.output)
        output = service_pb2.ModelInferResponse(
            outputs=[
                service_pb2.ModelInferResponse.InferOutputTensor(
                    name=binding.output.name, datatype=binding.output.dtype.value, shape=binding.output.shape
                )
            ]
        ).SerializeToString()
        self._answer_output = output + b"\x32" + (_varint(self._raw_size) if self._raw_size else b"")
        self._answer_head: bytes | None = None  # model and version as the server spells them: learned

    def __repr__(self) -> str:
        return f"<Codec {self.binding.model} {self.binding.input.dtype.value} {self.binding.input.shape}>"

    def request(self, call: Call) -> service_pb2.ModelInferRequest:
        """The request of a call as a protobuf: the plain path that :meth:`encode` equals."""
        binding = self.binding
        request = service_pb2.ModelInferRequest(
            model_name=binding.model, model_version=binding.version, id=call.request_id
        )
        if isinstance(call.correlation_id, str):
            request.parameters["sequence_id"].string_param = call.correlation_id
        else:
            request.parameters["sequence_id"].int64_param = call.correlation_id
        request.parameters["sequence_start"].bool_param = call.start
        request.parameters["sequence_end"].bool_param = call.end
        if binding.decoupled:
            request.parameters["triton_enable_empty_final_response"].bool_param = True
        request.inputs.add(name=binding.input.name, datatype=binding.input.dtype.value, shape=binding.input.shape)
        request.raw_input_contents.append(self._pack(call.value))
        return request

    def encode(self, call: Call) -> bytes:
        """One length-prefixed gRPC message. Raises ValueError where the dtype cannot hold the value."""
        request_id, correlation_id, start, end, value = call
        name = request_id.encode()
        name_size = _varint(len(name))
        sequence_id = _sequence_id(correlation_id)
        raw = self._pack(value)
        raw_size = _varint(len(raw))
        size = self._request_size + len(name_size) + len(name) + len(sequence_id) + 1 + len(raw_size) + len(raw)
        return b"".join(
            (
                PREFIX.pack(0, size),
                self._request_head,
                name_size,
                name,
                sequence_id,
                _FLAGS[start, end],
                self._request_tail,
                b"\x3a",
                raw_size,
                raw,
            )
        )

    def decode(self, message: bytes) -> Reply:
        """What one message of the server says; whatever its bytes are, there is a reply for it."""
        return self._decode_usual(message) or self.decode_any(message)

    def _decode_usual(self, message: bytes) -> Reply | None:
        """The reply, if the message has exactly the usual layout and a value; else None. Never reads past its
        end:
        a position beyond it makes ``startswith`` false."""
        head = self._answer_head
        if head is None or len(message) < 3 + len(head) + len(self._answer_output) or message[0] != 0x12:
            return None
        size, position = message[1], 2
        if size > 0x7F:
            if message[2] > 0x7F:
                return None
            size, position = size & 0x7F | message[2] << 7, 3
        if position + size != len(message) or not message.startswith(head, position):
            return None
        position += len(head)
        id_size = message[position]
        if id_size > 0x7F:
            return None
        id_end = position + 1 + id_size
        name = message[position + 1 : id_end]
        position = id_end
        final = not self.binding.decoupled
        if message.startswith(_ANSWER_IS_FINAL, position):
            final = True
            position += len(_ANSWER_IS_FINAL)
        elif message.startswith(_ANSWER_IS_NOT_FINAL, position):
            position += len(_ANSWER_IS_NOT_FINAL)
        if not message.startswith(self._answer_output, position):
            return None
        position += len(self._answer_output)
        if self._raw_size is None:
            if position >= len(message) or message[position] > 0x7F:
                return None
            raw_size = message[position]
            position += 1
        else:
            raw_size = self._raw_size
        if position + raw_size != len(message):
            return None
        try:
            return Reply(
                str(name, "utf-8"),
                ReplyKind.VALUE,
                self._unpack(message[position:]),
                "",
                self.binding.model,
                final,
            )
        except (_MalformedOutputError, UnicodeDecodeError):
            return None

    def decode_any(self, message: bytes) -> Reply:
        """The plain path of :meth:`decode`, over the protobuf; right for every message."""
        try:
            parsed = service_pb2.ModelStreamInferResponse.FromString(message)
        except DecodeError as error:
            text = f"not a ModelStreamInferResponse ({error}): {message[:64].hex()}"
            return Reply("", ReplyKind.MALFORMED, None, text, "", not self.binding.decoupled)
        return self.reply(parsed.error_message, parsed.infer_response)

    def reply(self, error_message: str, response: service_pb2.ModelInferResponse) -> Reply:
        """What the two fields of a ModelStreamInferResponse say."""
        model = response.model_name
        final = not self.binding.decoupled or (
            _FINAL_PARAMETER in response.parameters and response.parameters[_FINAL_PARAMETER].bool_param
        )
        if error_message:
            # A request that is rejected before it reaches the model names no model, and nothing follows.
            return Reply(response.id, ReplyKind.ERROR, None, error_message, model, final or not model)
        if not response.outputs and not response.raw_output_contents:
            return Reply(response.id, ReplyKind.EMPTY, None, "", model, final)
        if model != self.binding.model:
            return Reply(response.id, ReplyKind.MALFORMED, None, f"an answer of the model {model!r}", model, final)
        try:
            value = self._output_value(response)
        except _MalformedOutputError as error:
            return Reply(response.id, ReplyKind.MALFORMED, None, str(error), model, final)
        self._learn_head(response)
        return Reply(response.id, ReplyKind.VALUE, value, "", model, final)

    def _learn_head(self, response: service_pb2.ModelInferResponse) -> None:
        """Keep the bytes up to the request id's length, for the fast path."""
        head = service_pb2.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
        self._answer_head = head.SerializeToString() + b"\x1a"

    def _output_value(self, response: service_pb2.ModelInferResponse) -> Value | tuple[Value, ...]:
        """The value of the bound output, after its name, dtype, shape and element count were found right."""
        expected = self.binding.output
        names = [output.name for output in response.outputs]
        if names.count(expected.name) != 1:
            raise _MalformedOutputError(f"expected one output {expected.name!r}, got {names}")
        index = names.index(expected.name)
        output = response.outputs[index]
        seen = f"{output.datatype} {list(output.shape)}"
        if output.datatype != expected.dtype.value or tuple(output.shape) != expected.shape:
            wanted = f"{expected.dtype.value} {list(expected.shape)}"
            raise _MalformedOutputError(f"output {expected.name!r}: expected {wanted}, got {seen}")
        raws = response.raw_output_contents
        if raws:
            if len(raws) != len(names):
                raise _MalformedOutputError(f"{len(names)} outputs but {len(raws)} raw contents")
            return self._unpack(raws[index])
        elements: Sequence[Value | bytes] = getattr(output.contents, _CONTENTS[expected.dtype])
        if len(elements) != _element_count(expected):
            raise _MalformedOutputError(f"output {expected.name!r}: {seen} with {len(elements)} elements in contents")
        return _joined([_number(element) if isinstance(element, bytes) else element for element in elements])


def _element_count(tensor: TensorSpec) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _raw_size(tensor: TensorSpec) -> int | None:
    """How many raw bytes the tensor has; None for BYTES, which varies."""
    if tensor.dtype is Dtype.BYTES:
        return None
    return Struct("<" + _FORMATS[tensor.dtype]).size * _element_count(tensor)


def _packer(tensor: TensorSpec) -> Callable[[Value], bytes]:
    """From a value to the raw bytes of a tensor that is full of it (little endian, row major)."""
    count = _element_count(tensor)
    if tensor.dtype is Dtype.BYTES:

        def pack_decimal(value: Value) -> bytes:
            digits = b"%d" % value
            return (_ELEMENT_LENGTH.pack(len(digits)) + digits) * count

        return pack_decimal

    pack = Struct("<" + _FORMATS[tensor.dtype]).pack

    def pack_number(value: Value) -> bytes:
        try:
            return pack(value) * count
        except (StructError, OverflowError) as error:
            raise ValueError(f"{value!r} is no value of {tensor.dtype.value}: {error}") from None

    return pack_number


def _unpacker(tensor: TensorSpec) -> Callable[[bytes], Value | tuple[Value, ...]]:
    """From raw bytes to the value, or the values where they differ."""
    count = _element_count(tensor)
    if tensor.dtype is Dtype.BYTES:
        return lambda raw: _joined([_number(element) for element in _byte_elements(raw, tensor)])

    numbers = Struct(f"<{count}{_FORMATS[tensor.dtype]}")

    def unpack_numbers(raw: bytes) -> Value | tuple[Value, ...]:
        if len(raw) != numbers.size:
            raise _MalformedOutputError(
                f"output {tensor.name!r}: {tensor.dtype.value} {list(tensor.shape)} "
                f"takes {numbers.size} bytes, got {len(raw)}"
            )
        values = numbers.unpack(raw)
        return values[0] if count == 1 else _joined(values)

    return unpack_numbers


def _byte_elements(raw: bytes, tensor: TensorSpec) -> list[bytes]:
    """The elements of a BYTES tensor: each is its length in four bytes, little endian, and its bytes."""
    elements = []
    position = 0
    while position + 4 <= len(raw):
        (size,) = _ELEMENT_LENGTH.unpack_from(raw, position)
        elements.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    if position != len(raw) or len(elements) != _element_count(tensor):
        raise _MalformedOutputError(
            f"output {tensor.name!r}: {len(raw)} bytes are not the {_element_count(tensor)} "
            f"length-prefixed elements of shape {list(tensor.shape)}"
        )
    return elements


def _number(element: bytes) -> int:
    if not _DECIMAL.fullmatch(element):
        raise _MalformedOutputError(f"expected a decimal number, got {element[:64]!r}")
    return int(element)


def _joined(values: Sequence[Value]) -> Value | tuple[Value, ...]:
    """One scalar where all elements agree, else all of them."""
    first = values[0]
    return first if all(value == first for value in values) else tuple(values)
