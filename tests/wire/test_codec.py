"""Requests and answers: the fast paths equal the protobuf, and what is malformed is said to be, with its reason."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from seqstress.protocol import Binding, Call, Dtype, Reply, ReplyKind, TensorSpec
from seqstress.wire.codec import Codec
from seqstress.wire.framing import Deframer

Answer = service_pb2.ModelStreamInferResponse


def binding(dtype: Dtype = Dtype.INT32, shape: tuple[int, ...] = (1, 1), decoupled: bool = False) -> Binding:
    tensor = TensorSpec("INPUT", dtype, shape)
    return Binding("acc", "", tensor, tensor._replace(name="OUTPUT"), decoupled)


def answer(raw: bytes | None = b"\x05\0\0\0", **changes: object) -> Answer:
    """The usual answer of a batcher model, with changes to its output's fields."""
    message = Answer()
    response = message.infer_response
    response.model_name, response.model_version, response.id = "acc", "1", "r1"
    response.parameters["triton_final_response"].bool_param = True
    fields = {"name": "OUTPUT", "datatype": "INT32", "shape": [1, 1]} | changes
    response.outputs.add(**fields)
    if raw is not None:
        response.raw_output_contents.append(raw)
    return message


def wire(message: Answer) -> bytes:
    return message.SerializeToString(deterministic=True)


def warm(codec: Codec) -> Codec:
    """A codec that has seen the usual answer, so that its fast path is on."""
    spec = codec.binding.output
    usual = answer(datatype=spec.dtype.value, shape=list(spec.shape), raw=RAWS[spec.dtype])
    assert codec.decode(wire(usual)).kind is ReplyKind.VALUE
    return codec


RAWS = {
    Dtype.INT32: struct.pack("<i", 5),
    Dtype.INT64: struct.pack("<q", 5),
    Dtype.FP32: struct.pack("<f", 5),
    Dtype.FP64: struct.pack("<d", 5),
    Dtype.BYTES: b"\x01\0\0\x005",
}
VALUES = {
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FP32: st.floats(width=32, allow_nan=False),
    Dtype.FP64: st.floats(allow_nan=False),
    Dtype.BYTES: st.integers(),
}
CORRELATION_IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=128))
TEXTS = st.text(max_size=200)


@pytest.mark.parametrize("dtype", Dtype)
@given(data=st.data())
def test_encoded_requests_equal_the_protobuf(dtype: Dtype, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (1, 3), (2,)]))
    codec = Codec(binding(dtype, shape, data.draw(st.booleans()))._replace(version=data.draw(TEXTS)))
    call = Call(
        data.draw(TEXTS),
        data.draw(CORRELATION_IDS),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        data.draw(VALUES[dtype]),
    )
    (message,) = Deframer().feed(codec.encode(call))
    assert service_pb2.ModelInferRequest.FromString(message) == codec.request(call)


def test_a_request_says_what_triton_reads() -> None:
    codec = Codec(binding(Dtype.BYTES, decoupled=True))
    (message,) = Deframer().feed(codec.encode(Call("r1", "é" * 3, True, False, -12)))
    request = service_pb2.ModelInferRequest.FromString(message)
    parameters = {key: str(value).strip() for key, value in request.parameters.items()}
    assert parameters["sequence_start"] == "bool_param: true"
    assert parameters["sequence_end"] == "bool_param: false"
    assert parameters["triton_enable_empty_final_response"] == "bool_param: true"
    assert request.parameters["sequence_id"].string_param == "ééé"
    assert list(request.raw_input_contents) == [b"\x03\0\0\0-12"]
    assert (request.model_name, request.id, request.inputs[0].datatype) == ("acc", "r1", "BYTES")


@pytest.mark.parametrize(("dtype", "value"), [(Dtype.INT32, 2**31), (Dtype.INT32, 0.5), (Dtype.FP32, 1e39)])
def test_a_value_that_the_dtype_cannot_hold_is_refused(dtype: Dtype, value: float) -> None:
    with pytest.raises(ValueError, match=dtype.value):
        Codec(binding(dtype)).encode(Call("r", 1, True, True, value))


@pytest.mark.parametrize("dtype", Dtype)
@given(data=st.data())
def test_the_fast_path_takes_every_usual_answer_and_equals_the_protobuf(dtype: Dtype, data: st.DataObject) -> None:
    codec = warm(Codec(binding(dtype, decoupled=data.draw(st.booleans()))))
    value = data.draw(VALUES[dtype])
    raw = Codec(binding(dtype)).request(Call("", 1, True, True, value)).raw_input_contents[0]
    message = answer(raw, datatype=dtype.value)
    message.infer_response.id = data.draw(st.text(min_size=1, max_size=30))
    if (final := data.draw(st.sampled_from([True, False, None]))) is None:
        message.infer_response.parameters.clear()
    else:
        message.infer_response.parameters["triton_final_response"].bool_param = final
    fast = codec._decode_usual(wire(message))
    if len(raw) < 128:
        assert fast is not None
        assert fast.value == value
        assert fast == codec.decode_any(wire(message))


@given(data=st.data())
def test_the_fast_path_equals_the_protobuf_on_damaged_answers(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(Dtype))
    decoupled = data.draw(st.booleans())
    codec = warm(Codec(binding(dtype, decoupled=decoupled)))
    message = bytearray(wire(answer(RAWS[dtype], datatype=dtype.value)))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(message) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "cut"]))
        if kind == "set":
            message[position] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            message[position:position] = data.draw(st.binary(max_size=4))
        elif kind == "cut":
            del message[position + 1 :]
        elif len(message) > 1:
            del message[position]
    fast = codec._decode_usual(bytes(message))
    plain = codec.decode_any(bytes(message))
    assert fast is None or repr(fast) == repr(plain)


def test_the_fast_path_does_not_read_beyond_the_raw_contents() -> None:
    codec = warm(Codec(binding(Dtype.BYTES)))
    message = bytearray(wire(answer(b"\x01\0\0\x005", datatype="BYTES")))
    message[-5] = 6  # the element claims five bytes behind the contents, which would make it the number 587878
    message += b"87878"
    message[1] += 5
    assert codec._decode_usual(bytes(message)) is None


@given(st.binary(max_size=200))
def test_any_bytes_have_a_reply(message: bytes) -> None:
    codec = warm(Codec(binding()))
    assert codec.decode(message) == codec.decode_any(message)


def test_typed_contents_are_as_good_as_raw_ones() -> None:
    for dtype, field, element, value in [
        (Dtype.INT32, "int_contents", 7, 7),
        (Dtype.INT64, "int64_contents", -7, -7),
        (Dtype.FP32, "fp32_contents", 0.5, 0.5),
        (Dtype.FP64, "fp64_contents", 0.1, 0.1),
        (Dtype.BYTES, "bytes_contents", b"-7", -7),
    ]:
        message = answer(None, datatype=dtype.value)
        getattr(message.infer_response.outputs[0].contents, field).append(element)
        assert Codec(binding(dtype)).decode(wire(message)).value == value


def test_many_elements_are_one_value_where_they_agree_and_all_where_not() -> None:
    codec = Codec(binding(shape=(1, 3)))
    agreed = answer(struct.pack("<3i", 4, 4, 4), shape=[1, 3])
    split = answer(struct.pack("<3i", 4, 4, 5), shape=[1, 3])
    for _ in range(2):  # by the protobuf, then by the fast path
        assert codec.decode(wire(agreed)).value == 4
        assert codec.decode(wire(split)).value == (4, 4, 5)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (answer(name="OTHER"), "expected one output 'OUTPUT', got ['OTHER']"),
        (answer(datatype="INT64"), "expected INT32 [1, 1], got INT64 [1, 1]"),
        (answer(shape=[1]), "expected INT32 [1, 1], got INT32 [1]"),
        (answer(shape=[1, 2]), "expected INT32 [1, 1], got INT32 [1, 2]"),
        (answer(b"123"), "takes 4 bytes, got 3"),
        (answer(b"12345678"), "takes 4 bytes, got 8"),
        (answer(None), "0 elements in contents"),
    ],
)
def test_a_malformed_output_says_what_was_seen_and_what_was_expected(message: Answer, text: str) -> None:
    for codec in (Codec(binding()), warm(Codec(binding()))):
        reply = codec.decode(wire(message))
        assert (reply.kind, reply.request_id, reply.value) == (ReplyKind.MALFORMED, "r1", None)
        assert text in reply.text


@pytest.mark.parametrize("raw", [b"", b"\x02\0\0\0ab", b"\x05\0\0\x0012", b"\x01\0\0\x001\x01\0\0\x001", b"\0\0\0\0"])
def test_bytes_that_are_no_decimal_number_are_malformed(raw: bytes) -> None:
    for codec in (Codec(binding(Dtype.BYTES)), warm(Codec(binding(Dtype.BYTES)))):
        assert codec.decode(wire(answer(raw, datatype="BYTES"))).kind is ReplyKind.MALFORMED


def test_an_output_beside_the_expected_one_is_not_our_business() -> None:
    message = answer()
    message.infer_response.outputs.add(name="EXTRA", datatype="FP32", shape=[1])
    message.infer_response.raw_output_contents.append(b"\0\0\0\0")
    assert warm(Codec(binding())).decode(wire(message)).value == 5


def test_outputs_and_raw_contents_must_pair() -> None:
    message = answer()
    message.infer_response.raw_output_contents.append(b"\0\0\0\0")
    reply = warm(Codec(binding())).decode(wire(message))
    assert (reply.kind, reply.text) == (ReplyKind.MALFORMED, "1 outputs but 2 raw contents")


def test_an_error_keeps_its_request_id_and_text() -> None:
    message = Answer(error_message="no START")
    message.infer_response.id = "r9"
    assert Codec(binding()).decode(wire(message)) == Reply("r9", ReplyKind.ERROR, None, "no START", "", True)


@pytest.mark.parametrize(
    ("decoupled", "parameter", "final"),
    [(False, None, True), (False, False, True), (True, None, False), (True, False, False), (True, True, True)],
)
def test_final_is_what_the_server_says_on_decoupled_models_only(
    decoupled: bool, parameter: bool | None, final: bool
) -> None:
    codec = Codec(binding(decoupled=decoupled))
    message = answer()
    message.infer_response.parameters.clear()
    if parameter is not None:
        message.infer_response.parameters["triton_final_response"].bool_param = parameter
    for _ in range(2):
        assert codec.decode(wire(message)).final is final


def test_an_answer_without_outputs_is_empty() -> None:
    message = Answer()
    message.infer_response.id = "r1"
    message.infer_response.parameters["triton_final_response"].bool_param = True
    reply = Codec(binding(decoupled=True)).decode(wire(message))
    assert (reply.kind, reply.request_id, reply.final) == (ReplyKind.EMPTY, "r1", True)


def test_an_error_of_a_decoupled_model_that_never_ran_is_final() -> None:
    codec = Codec(binding(decoupled=True))
    rejected = Answer(error_message="no START")
    failed = Answer(error_message="boom")
    failed.infer_response.model_name = "acc"
    assert codec.decode(wire(rejected)).final
    assert not codec.decode(wire(failed)).final


def test_another_model_name_is_told_and_not_learned() -> None:
    codec = Codec(binding())
    message = answer()
    message.infer_response.model_name = "other"
    for _ in range(2):
        assert codec.decode(wire(message)).model == "other"
