"""The sans-I/O machine against scripted bytes: messages, ends, and how streams and connections fail."""

import pytest
from hyperframe import frame as hyperframe
from hypothesis import given, settings
from hypothesis import strategies as st

from seqstress.protocol import EndCause, StreamEnd
from seqstress.wire.events import Closed, Event, MessagesReceived, Opened, StreamEnded
from seqstress.wire.framing import PREFIX, frame
from seqstress.wire.machine import REPLY_LIMIT, Machine, MachineState
from tests.wire.scripted_peer import MAX_CONCURRENT, REQUEST_HEADERS, Conversation


def the_end(events: list[Event]) -> StreamEnd:
    """The end of the only stream that these events are about."""
    (event,) = [event for event in events if not isinstance(event, MessagesReceived)]
    assert isinstance(event, StreamEnded)
    return event.end


def resets(frames: list[hyperframe.Frame]) -> list[tuple[int, int]]:
    return [(f.stream_id, f.error_code) for f in frames if isinstance(f, hyperframe.RstStreamFrame)]


def test_it_greets_with_preface_settings_and_a_wide_window() -> None:
    greeting = Conversation(stream_window=1 << 20, connection_window=1 << 24).hello
    assert greeting[0].settings[4] == 1 << 20
    assert greeting[0].settings[2] == 0, "no server push"
    assert greeting[1].window_increment == (1 << 24) - 65535


def test_the_peers_settings_open_it_and_are_acknowledged() -> None:
    talk = Conversation({MAX_CONCURRENT: 7})
    assert talk.events == [Opened()]
    assert talk.machine.stream_limit == 7
    talk.machine.receive(talk.script.settings({MAX_CONCURRENT: 9}))
    assert [f for f in talk.frames() if "ACK" in f.flags]
    assert talk.machine.stream_limit == 9


def test_its_repr_is_one_line_of_state() -> None:
    talk = Conversation({MAX_CONCURRENT: 7}, widen=False)
    talk.open()
    assert repr(talk.machine) == "<Machine open streams=1/7 pending=0 window=65535>"


def test_it_opens_as_many_streams_as_the_peer_allows() -> None:
    talk = Conversation({MAX_CONCURRENT: 2})
    first = talk.open(2) - 2
    assert not talk.machine.can_open
    talk.machine.reset(first)
    assert talk.machine.can_open


def exchange(talk: Conversation) -> bytes:
    """A server's whole side: two streams, messages cut and joined, padding, CONTINUATION, pings, a reset."""
    script = talk.script
    block = script.block([(":status", "200"), ("content-type", "application/grpc"), ("x", "y" * 30)])
    message = frame(b"a" * 300)
    return b"".join(
        [
            hyperframe.HeadersFrame(1, block[:5]).serialize(),
            hyperframe.ContinuationFrame(1, block[5:9]).serialize(),
            hyperframe.ContinuationFrame(1, block[9:], flags=["END_HEADERS"]).serialize(),
            script.headers(3),
            script.data(1, message[:3]),
            script.data(3, frame(b"one") + frame(b"") + frame(b"three"), pad=9),
            script.ping(),
            script.data(1, message[3:200], pad=0),
            script.data(1, b""),
            script.data(1, message[200:] + frame(b"b")),
            script.window_update(0, 17),
            script.reset(3, 2),
            script.trailers(1, "0"),
        ]
    )


def summary(events: list[Event]) -> dict[int, list[object]]:
    """Per stream its messages, flattened, and its end."""
    told: dict[int, list[object]] = {}
    for event in events:
        match event:
            case MessagesReceived(stream_id, messages):
                told.setdefault(stream_id, []).extend(messages)
            case StreamEnded(stream_id, end):
                told.setdefault(stream_id, []).append(end.cause)
    return told


EXPECTED = {
    1: [b"a" * 300, b"b", EndCause.COMPLETED],
    3: [b"one", b"", b"three", EndCause.RESET],
}


def test_bytes_mean_the_same_wherever_they_are_cut_in_two() -> None:
    length = len(exchange(Conversation()))
    for cut in range(length + 1):
        talk = Conversation()
        talk.machine.open(REQUEST_HEADERS)
        talk.machine.open(REQUEST_HEADERS)
        script = exchange(talk)
        events = talk.machine.receive(script[:cut]) + talk.machine.receive(script[cut:])
        assert summary(events) == EXPECTED, f"cut at {cut}"


def test_bytes_mean_the_same_one_by_one() -> None:
    talk = Conversation()
    talk.machine.open(REQUEST_HEADERS)
    talk.machine.open(REQUEST_HEADERS)
    events = [event for byte in exchange(talk) for event in talk.machine.receive(bytes([byte]))]
    assert summary(events) == EXPECTED


def test_a_ping_is_answered() -> None:
    talk = Conversation()
    talk.machine.receive(talk.script.ping())
    (pong,) = talk.frames()
    assert isinstance(pong, hyperframe.PingFrame)
    assert (pong.opaque_data, "ACK" in pong.flags) == (b"pingpong", True)


def test_a_peer_that_asks_without_end_and_reads_nothing_is_cut_off() -> None:
    talk = Conversation()
    talk.open()
    pings = talk.script.ping() * 3_000
    told = [talk.machine.receive(pings) for _ in range(REPLY_LIMIT // len(pings) + 1)]
    assert not any(told[:-1])
    ended, closed = told[-1]
    assert isinstance(ended, StreamEnded) and isinstance(closed, Closed)
    assert ended.end.cause is EndCause.PROTOCOL
    assert not talk.machine.has_output, "nothing of it is kept"


def test_a_peer_that_asks_much_and_reads_the_replies_is_served() -> None:
    talk = Conversation()
    pings = talk.script.ping() * 3_000
    for _ in range(REPLY_LIMIT // len(pings) + 1):
        assert talk.machine.receive(pings) == []
        talk.machine.take()


def test_unknown_frames_and_settings_are_ignored() -> None:
    talk = Conversation()
    stream = talk.open()
    unknown = b"\0\0\x08\xf0\0\0\0\0\0whatever"
    assert talk.machine.receive(unknown + talk.script.settings({0x99: 1})) == []
    assert talk.machine.receive(talk.script.messages(stream, b"x")) == [MessagesReceived(stream, [b"x"])]


def test_trailers_complete_a_stream_that_we_half_closed() -> None:
    talk = Conversation()
    stream = talk.open()
    talk.machine.end(stream)
    assert "END_STREAM" in talk.frames()[0].flags
    assert the_end(talk.machine.receive(talk.script.trailers(stream))) == StreamEnd(EndCause.COMPLETED, 0, "")
    assert talk.frames() == []


def test_a_stream_that_the_server_ends_first_is_closed_on_our_side_too() -> None:
    talk = Conversation({MAX_CONCURRENT: 1})
    stream = talk.open()
    talk.machine.send(stream, [frame(b"never sent")])
    the_end(talk.machine.receive(talk.script.trailers(stream)))
    assert resets(talk.frames()) == [(stream, 0)]
    assert talk.machine.can_open


def test_a_status_and_its_percent_encoded_message_are_told() -> None:
    talk = Conversation()
    stream = talk.open()
    trailers = talk.script.trailers(stream, "14", "no%20slot%3A %C3%A9%")
    assert the_end(talk.machine.receive(trailers)) == StreamEnd(EndCause.STATUS, 14, "no slot: é%")


def test_trailers_only_are_an_end() -> None:
    talk = Conversation()
    stream = talk.machine.open(REQUEST_HEADERS)
    headers = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
        ("grpc-message", "no such method"),
    ]
    events = talk.machine.receive(talk.script.headers(stream, headers, end=True))
    assert the_end(events) == StreamEnd(EndCause.STATUS, 12, "no such method")


@pytest.mark.parametrize(("status", "code"), [("502", 14), ("401", 16), ("404", 12), ("500", 2), ("204", 2)])
def test_another_http_status_ends_the_stream(status: str, code: int) -> None:
    talk = Conversation()
    stream = talk.machine.open(REQUEST_HEADERS)
    headers = talk.script.headers(stream, [(":status", status), ("content-type", "text/html")])
    end = the_end(talk.machine.receive(headers))
    assert (end.cause, end.status) == (EndCause.STATUS, code)
    assert f"HTTP status {status}" in end.text
    assert talk.machine.receive(talk.script.data(stream, b"<html>", end=True)) == [], "its body is ignored"
    assert talk.machine.state is MachineState.OPEN


def test_an_answer_that_is_not_grpc_ends_the_stream() -> None:
    talk = Conversation()
    stream = talk.machine.open(REQUEST_HEADERS)
    headers = talk.script.headers(stream, [(":status", "200"), ("content-type", "text/html")])
    assert "text/html" in the_end(talk.machine.receive(headers)).text


def test_informational_headers_come_before_the_response() -> None:
    talk = Conversation()
    stream = talk.machine.open(REQUEST_HEADERS)
    assert talk.machine.receive(talk.script.headers(stream, [(":status", "103")])) == []
    assert talk.machine.receive(talk.script.headers(stream)) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (PREFIX.pack(1, 3) + b"abc", "compression flag"),
        (PREFIX.pack(0, 1 << 31), "above the limit"),
    ],
)
def test_a_message_that_grpc_forbids_ends_its_stream_only(data: bytes, text: str) -> None:
    talk = Conversation()
    stream = talk.open(2)
    end = the_end(talk.machine.receive(talk.script.data(stream, data)))
    assert end.cause is EndCause.PROTOCOL
    assert text in end.text
    assert resets(talk.frames()) == [(stream, 1)]
    assert talk.machine.receive(talk.script.messages(stream - 2, b"x")) == [MessagesReceived(stream - 2, [b"x"])]


@pytest.mark.parametrize("trailers", ["0", "13"])
def test_a_stream_that_ends_inside_a_message_broke_the_protocol(trailers: str) -> None:
    talk = Conversation()
    stream = talk.open()
    talk.machine.receive(talk.script.data(stream, frame(b"abc")[:-1]))
    end = the_end(talk.machine.receive(talk.script.trailers(stream, trailers)))
    assert end.cause is EndCause.PROTOCOL
    assert "in the middle of a message" in end.text


def test_an_end_without_trailers_broke_the_protocol() -> None:
    talk = Conversation()
    stream = talk.open()
    events = talk.machine.receive(talk.script.data(stream, frame(b"last"), end=True))
    assert events[0] == MessagesReceived(stream, [b"last"])
    assert the_end(events) == StreamEnd(EndCause.PROTOCOL, None, "the stream ended without trailers")


@pytest.mark.parametrize("status", [None, "", "x", "-1", "²"])
def test_trailers_without_a_status_broke_the_protocol(status: str | None) -> None:
    talk = Conversation()
    stream = talk.open()
    trailers = [("x", "y")] if status is None else [("grpc-status", status)]
    end = the_end(talk.machine.receive(talk.script.headers(stream, trailers, end=True)))
    assert end.cause is EndCause.PROTOCOL


def test_data_before_the_response_headers_broke_the_protocol() -> None:
    talk = Conversation()
    stream = talk.machine.open(REQUEST_HEADERS)
    end = the_end(talk.machine.receive(talk.script.messages(stream, b"x")))
    assert end == StreamEnd(EndCause.PROTOCOL, None, "DATA before the response headers")


def test_a_reset_by_the_server_ends_its_stream_only() -> None:
    talk = Conversation()
    stream = talk.open(2)
    assert the_end(talk.machine.receive(talk.script.reset(stream, 8))) == StreamEnd(
        EndCause.RESET, None, "RST_STREAM CANCEL"
    )
    assert talk.machine.stream_count == 1


def test_a_reset_by_us_is_told_at_once_and_late_frames_are_ignored() -> None:
    talk = Conversation()
    stream = talk.open(2)
    talk.machine.send(stream, [frame(b"never sent")])
    assert the_end(talk.machine.reset(stream)).cause is EndCause.LOCAL
    assert talk.machine.reset(stream) == []
    assert resets(talk.frames()) == [(stream, 8)]
    late = talk.script.messages(stream, b"late") + talk.script.trailers(stream) + talk.script.reset(stream)
    assert talk.machine.receive(late) == []
    assert talk.machine.receive(talk.script.messages(stream - 2, b"x")), "the connection lives on"


def test_calls_on_a_stream_that_is_over_do_nothing() -> None:
    talk = Conversation()
    stream = talk.open()
    talk.machine.receive(talk.script.reset(stream))
    talk.machine.send(stream, [frame(b"x")])
    talk.machine.end(stream)
    assert talk.frames() == []


def test_goaway_ends_what_it_refuses_and_lets_the_rest_finish() -> None:
    talk = Conversation()
    stream = talk.open(3)
    (event,) = talk.machine.receive(talk.script.goaway(stream - 2, 0, b"restart"))
    assert event == StreamEnded(stream, StreamEnd(EndCause.GOAWAY, None, "the server went away (NO_ERROR: restart)"))
    assert talk.machine.state is MachineState.DRAINING
    assert not talk.machine.can_open
    talk.machine.send(stream - 2, [frame(b"more")])
    assert talk.sent_bytes(stream - 2) == frame(b"more")
    rest = talk.script.messages(stream - 2, b"x") + talk.script.trailers(stream - 2)
    assert summary(talk.machine.receive(rest)) == {stream - 2: [b"x", EndCause.COMPLETED]}


def test_a_second_goaway_may_refuse_more() -> None:
    talk = Conversation()
    stream = talk.open(2)
    assert talk.machine.receive(talk.script.goaway(2**31 - 1)) == []
    assert summary(talk.machine.receive(talk.script.goaway(stream - 2))) == {stream: [EndCause.GOAWAY]}


def test_a_lost_connection_ends_every_stream() -> None:
    talk = Conversation()
    stream = talk.open(2)
    end = StreamEnd(EndCause.DISCONNECTED, None, "reset by peer")
    assert talk.machine.lose("reset by peer") == [
        StreamEnded(stream - 2, end),
        StreamEnded(stream, end),
        Closed(end),
    ]
    assert talk.machine.lose("again") == []
    assert talk.machine.receive(talk.script.messages(stream, b"x")) == []


def test_a_close_by_us_ends_every_stream_and_says_goaway() -> None:
    talk = Conversation()
    talk.open()
    ended, closed = talk.machine.close()
    assert isinstance(ended, StreamEnded)
    assert isinstance(closed, Closed)
    assert ended.end.cause is closed.end.cause is EndCause.LOCAL
    assert isinstance(talk.frames()[-1], hyperframe.GoAwayFrame)


def violation(talk: Conversation, stream: int, name: str) -> bytes:
    """Bytes that no server may send."""
    script = talk.script
    half_a_block = hyperframe.HeadersFrame(stream, script.block([("grpc-status", "0")])).serialize()
    return {
        "an overlong frame": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        "padding beyond the frame": b"\x00\x00\x02\x00\x08\x00\x00\x00\x01\x09\x00",
        "a padded frame without a length": b"\x00\x00\x00\x00\x08\x00\x00\x00\x01",
        "data on the connection": script.data(1, b"x").replace(b"\0\0\0\x01x", b"\0\0\0\0x"),
        "data on a stream that never was": script.data(stream + 2, b"x"),
        "data on a stream of the server": script.data(2, b"x"),
        "a window update for a stream that never was": script.window_update(stream + 2, 1),
        "a window update of 0": b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
        "a window update of 3 bytes": b"\0\0\3\x08\0\0\0\0\0\0\0\0",
        "a connection window beyond 2^31 - 1": script.window_update(0, 2**31 - 1),
        "a naked CONTINUATION": hyperframe.ContinuationFrame(stream, b"", flags=["END_HEADERS"]).serialize(),
        "DATA inside a header block": half_a_block + script.data(stream, b""),
        "WINDOW_UPDATE inside a header block": half_a_block + script.window_update(0, 1),
        "garbage as a header block": hyperframe.HeadersFrame(stream, b"\xff" * 20, flags=["END_HEADERS"]).serialize(),
        "a short GOAWAY": b"\0\0\4\x07\0\0\0\0\0\0\0\0\0",
        "a pushed stream": hyperframe.PushPromiseFrame(
            stream, 2, script.block(REQUEST_HEADERS), flags=["END_HEADERS"]
        ).serialize(),
        "a frame size that is none": script.settings({5: 100}),
        "an initial window beyond 2^31 - 1": script.settings({4: 2**31}),
    }[name]


VIOLATIONS = [
    "an overlong frame",
    "padding beyond the frame",
    "a padded frame without a length",
    "data on the connection",
    "data on a stream that never was",
    "data on a stream of the server",
    "a window update for a stream that never was",
    "a window update of 0",
    "a window update of 3 bytes",
    "a connection window beyond 2^31 - 1",
    "a naked CONTINUATION",
    "DATA inside a header block",
    "WINDOW_UPDATE inside a header block",
    "garbage as a header block",
    "a short GOAWAY",
    "a pushed stream",
    "a frame size that is none",
    "an initial window beyond 2^31 - 1",
]


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_http2_forbids_ends_the_connection_and_every_stream(name: str) -> None:
    talk = Conversation()
    stream = talk.open(2)
    good = talk.script.messages(stream, b"before")
    events = talk.machine.receive(good + violation(talk, stream, name) + good)
    assert events[0] == MessagesReceived(stream, [b"before"]), "what came before still counts"
    ends = [event.end.cause for event in events[1:] if isinstance(event, StreamEnded | Closed)]
    assert ends == [EndCause.PROTOCOL] * 3, "both streams, then the connection; nothing behind it"
    assert isinstance(talk.frames()[-1], hyperframe.GoAwayFrame)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 40, b"\x15\x03\x01\0\2\2\n" * 4])
def test_a_peer_that_does_not_speak_http2_is_found_out_by_its_first_bytes(garbage: bytes) -> None:
    machine = Machine()
    (closed,) = machine.receive(garbage)
    assert isinstance(closed, Closed)
    assert closed.end.cause is EndCause.PROTOCOL


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_break_the_machine_and_every_stream_ends_once(data: st.DataObject) -> None:
    talk = Conversation()
    talk.machine.open(REQUEST_HEADERS)
    talk.machine.open(REQUEST_HEADERS)
    script = bytearray(exchange(talk))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(script) - 1))
        script[position] = data.draw(st.integers(0, 255))
    events = talk.machine.receive(bytes(script))
    if data.draw(st.booleans()):
        events += talk.machine.receive(data.draw(st.binary(max_size=60)))
    events += talk.machine.lose("over")
    ended = [event.stream_id for event in events if isinstance(event, StreamEnded)]
    assert sorted(ended) == [1, 3]
    assert sum(isinstance(event, Closed) for event in events) == 1
    talk.machine.take()
