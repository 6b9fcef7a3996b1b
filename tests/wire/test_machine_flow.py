"""Flow control: both directions, every owner of a window, and more bytes than a window can count."""

from hyperframe import frame as hyperframe
from hypothesis import given
from hypothesis import strategies as st

from seqstress.protocol import EndCause
from seqstress.wire.events import Closed, MessagesReceived, StreamEnded
from seqstress.wire.framing import frame
from tests.wire.scripted_peer import INITIAL_WINDOW, MAX_FRAME, Conversation


def granted(frames: list[hyperframe.Frame]) -> dict[int, int]:
    """What the machine granted the peer, by stream; 0 is the connection."""
    grants: dict[int, int] = {}
    for sent in frames:
        if isinstance(sent, hyperframe.WindowUpdateFrame):
            grants[sent.stream_id] = grants.get(sent.stream_id, 0) + sent.window_increment
    return grants


def test_a_pipelined_sequence_leaves_in_one_frame() -> None:
    talk = Conversation()
    stream = talk.open()
    talk.machine.send(stream, [frame(b"%d" % i) for i in range(16)])
    data, sent = talk.machine.take()
    assert data.endswith(b"".join(frame(b"%d" % i) for i in range(16)))
    ((stream_id, messages, position),) = sent
    assert (stream_id, messages) == (stream, 16)
    talk.machine.send(stream, [frame(b"x")])
    data, (mark,) = talk.machine.take()
    assert mark.position == position + len(data), "positions count all output of the connection"


def test_a_stream_waits_for_its_own_window_and_others_do_not() -> None:
    talk = Conversation({INITIAL_WINDOW: 10})
    stream = talk.open(2)
    talk.machine.send(stream, [frame(b"a" * 10)])
    talk.machine.send(stream - 2, [frame(b"b")])
    frames = [f for f in talk.frames() if isinstance(f, hyperframe.DataFrame)]
    assert {f.stream_id: f.data for f in frames} == {stream: frame(b"a" * 10)[:10], stream - 2: frame(b"b")}
    assert not talk.machine.has_output
    talk.machine.receive(talk.script.window_update(stream, 3))
    assert talk.sent_bytes(stream) == b"aaa"
    talk.machine.receive(talk.script.window_update(stream, 100))
    assert talk.sent_bytes(stream) == b"aa"


def test_a_message_is_sent_when_its_last_byte_is() -> None:
    talk = Conversation({INITIAL_WINDOW: 10})
    stream = talk.open()
    talk.machine.send(stream, [frame(b"12345"), frame(b"67890"), frame(b"")])
    assert [mark.messages for mark in talk.machine.take().sent] == [1]
    talk.machine.receive(talk.script.window_update(stream, 9))
    assert talk.machine.take().sent == []
    talk.machine.receive(talk.script.window_update(stream, 6))
    assert [mark.messages for mark in talk.machine.take().sent] == [2]


def test_the_connection_window_holds_all_streams_and_lets_them_on_in_turn() -> None:
    talk = Conversation(widen=False)
    stream = talk.open(2)
    talk.machine.send(stream - 2, [b"a" * 60000])
    talk.machine.send(stream, [b"b" * 60000])
    frames = talk.frames()
    assert sum(len(f.data) for f in frames) == 65535
    assert {f.stream_id for f in frames} == {stream - 2, stream}, "the first does not starve the second"
    assert not talk.machine.has_output
    talk.machine.receive(talk.script.window_update(0, 1 << 20))
    assert sum(len(f.data) for f in talk.frames()) == 120000 - 65535


def test_a_half_close_waits_behind_what_the_windows_hold() -> None:
    talk = Conversation({INITIAL_WINDOW: 4})
    stream = talk.open()
    talk.machine.send(stream, [frame(b"abc")])
    talk.machine.end(stream)
    assert "END_STREAM" not in talk.frames()[-1].flags
    talk.machine.receive(talk.script.window_update(stream, 4))
    *_, last = talk.frames()
    assert (last.data, "END_STREAM" in last.flags) == (b"", True)


def test_a_half_close_without_data_needs_no_window() -> None:
    talk = Conversation({INITIAL_WINDOW: 0})
    stream = talk.open()
    talk.machine.end(stream)
    assert "END_STREAM" in talk.frames()[0].flags


def test_a_smaller_initial_window_makes_windows_negative_until_they_are_granted_back() -> None:
    talk = Conversation({INITIAL_WINDOW: 100})
    stream = talk.open()
    talk.machine.send(stream, [b"x" * 120])
    assert len(talk.sent_bytes(stream)) == 100
    talk.machine.receive(talk.script.settings({INITIAL_WINDOW: 30}))  # its window: -70
    talk.machine.receive(talk.script.window_update(stream, 70))
    assert talk.sent_bytes(stream) == b""
    talk.machine.receive(talk.script.window_update(stream, 5))
    assert talk.sent_bytes(stream) == b"xxxxx"
    talk.machine.receive(talk.script.settings({INITIAL_WINDOW: 40}))
    assert talk.sent_bytes(stream) == b"x" * 10
    new = talk.open()
    talk.machine.send(new, [b"y" * 50])
    assert len(talk.sent_bytes(new)) == 40, "new streams begin with the new size"


def test_a_smaller_window_also_holds_what_was_ready() -> None:
    talk = Conversation({INITIAL_WINDOW: 100})
    stream = talk.open()
    talk.machine.send(stream, [b"x" * 50])
    talk.machine.receive(talk.script.settings({INITIAL_WINDOW: 0}))
    assert talk.sent_bytes(stream) == b""


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    talk = Conversation({MAX_FRAME: 20000, INITIAL_WINDOW: 1 << 20})
    stream = talk.open()
    talk.machine.send(stream, [b"x" * 50000])
    assert [len(f.data) for f in talk.frames()] == [20000, 20000, 10000]


def test_a_stream_window_beyond_its_limit_ends_the_stream() -> None:
    talk = Conversation()
    stream = talk.open(2)
    (event,) = talk.machine.receive(talk.script.window_update(stream, 2**31 - 1))
    assert isinstance(event, StreamEnded)
    assert (event.stream_id, event.end.cause) == (stream, EndCause.PROTOCOL)
    assert [f.error_code for f in talk.frames()] == [3]


def test_settings_that_take_a_stream_window_beyond_its_limit_end_the_connection() -> None:
    talk = Conversation({INITIAL_WINDOW: 10})
    stream = talk.open()
    talk.machine.receive(talk.script.window_update(stream, 2**31 - 11))
    *_, closed = talk.machine.receive(talk.script.settings({INITIAL_WINDOW: 11}))
    assert isinstance(closed, Closed)


@given(st.data())
def test_every_byte_leaves_once_and_in_order_whatever_the_windows_do(data: st.DataObject) -> None:
    talk = Conversation({INITIAL_WINDOW: 50}, widen=False)
    streams = [talk.open(), talk.open()]
    queued = dict.fromkeys(streams, b"")
    out = dict.fromkeys(streams, b"")
    messages = dict.fromkeys(streams, 0)
    told = dict.fromkeys(streams, 0)

    def take() -> None:
        while talk.machine.has_output:
            output = talk.machine.take()
            for sent in talk._reader.feed(output.data):
                if isinstance(sent, hyperframe.DataFrame):
                    out[sent.stream_id] += sent.data
            for mark in output.sent:
                told[mark.stream_id] += mark.messages

    for step in range(data.draw(st.integers(1, 25))):
        stream = data.draw(st.sampled_from(streams))
        match data.draw(st.sampled_from(["send", "stream", "connection", "settings", "take"])):
            case "send":
                message = frame(b"%d" % step * data.draw(st.integers(0, 60)))
                talk.machine.send(stream, [message])
                queued[stream] += message
                messages[stream] += 1
            case "stream":
                talk.machine.receive(talk.script.window_update(stream, data.draw(st.integers(1, 90))))
            case "connection":
                talk.machine.receive(talk.script.window_update(0, data.draw(st.integers(1, 90))))
            case "settings":
                talk.machine.receive(talk.script.settings({INITIAL_WINDOW: data.draw(st.integers(0, 120))}))
            case "take":
                take()
        assert all(queued[stream].startswith(out[stream]) for stream in streams)
    talk.machine.receive(talk.script.settings({INITIAL_WINDOW: 1 << 20}))
    talk.machine.receive(talk.script.window_update(0, 1 << 20))
    take()
    assert out == queued
    assert told == messages


def test_what_came_in_is_granted_again_before_the_peer_runs_dry() -> None:
    talk = Conversation(stream_window=1000, connection_window=70000)
    stream = talk.open()
    talk.machine.receive(talk.script.data(stream, frame(b"x" * 494)))
    assert granted(talk.frames()) == {}
    talk.machine.receive(talk.script.data(stream, frame(b"x"), pad=4))
    assert granted(talk.frames()) == {stream: 499 + 6 + 5}, "padding counts"


def test_data_of_a_stream_that_we_reset_still_refills_the_connection() -> None:
    talk = Conversation(connection_window=70000)
    stream = talk.open()
    talk.machine.reset(stream)
    talk.frames()
    for _ in range(3):
        assert talk.machine.receive(talk.script.data(stream, b"x" * 16000)) == []
    assert granted(talk.frames()) == {0: 48000}


def test_a_peer_that_sends_more_than_a_stream_was_granted_loses_the_stream() -> None:
    talk = Conversation(stream_window=100, connection_window=70000)
    stream = talk.open()
    (event,) = talk.machine.receive(talk.script.data(stream, b"\0" * 101))
    assert isinstance(event, StreamEnded)
    assert (event.end.cause, event.end.text) == (EndCause.PROTOCOL, "101 bytes came in where 100 were granted")


def test_a_peer_that_sends_more_than_the_connection_was_granted_loses_it() -> None:
    talk = Conversation(connection_window=65535)
    talk.machine._receive_window.left = 10
    stream = talk.open()
    *_, closed = talk.machine.receive(talk.script.data(stream, b"\0" * 11))
    assert isinstance(closed, Closed)
    assert "connection window" in closed.end.text


def test_both_directions_work_on_past_2_gib() -> None:
    """A window holds at most 2^31 - 1: a ledger that only ever counts up, or down, dies at that many bytes."""
    talk = Conversation({INITIAL_WINDOW: 2**31 - 1, MAX_FRAME: 2**24 - 1})
    stream = talk.open()
    talk.machine.receive(talk.script.window_update(0, 2**31 - 1 - 65535 - (1 << 20)))
    chunk = bytes(2**24 - 1)
    sent = 0
    while sent < 2**31 + 2**26:
        talk.machine.send(stream, [chunk])
        output = talk.machine.take()
        assert len(output.data) == len(chunk) + 9
        sent += len(chunk)
        assert talk.machine.receive(talk.script.window_update(stream, len(chunk))) == []
        assert talk.machine.receive(talk.script.window_update(0, len(chunk))) == []

    received = 0
    message = talk.script.messages(stream, bytes(16000))
    batch = message * 64
    available = {stream: 4 << 20, 0: 64 << 20}
    while received < 2**31 + 2**26:
        events = talk.machine.receive(batch)
        assert len(events) == 64
        assert isinstance(events[0], MessagesReceived)
        received += 64 * 16005
        for window, grant in granted(talk.frames()).items():
            available[window] += grant
        assert available[stream] - received > 0
        assert available[0] - received > 0
