"""Length-prefixed messages: cut anywhere, joined anyhow, and refused where gRPC forbids them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.wire.framing import PREFIX, Deframer, FramingError, frame


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 60)))
def test_messages_come_out_as_they_went_in_wherever_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, messages))
    deframer = Deframer()
    received = []
    for cut in cuts:
        received += deframer.feed(data[:cut])
        data = data[cut:]
    received += deframer.feed(data)
    assert received == messages
    assert not deframer.is_inside


def test_a_message_without_its_last_byte_is_not_a_message() -> None:
    deframer = Deframer()
    assert deframer.feed(frame(b"abc")[:-1]) == []
    assert deframer.is_inside


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_compression_flag_is_refused(flag: int) -> None:
    with pytest.raises(FramingError, match=f"compression flag {flag}"):
        Deframer().feed(PREFIX.pack(flag, 0))


def test_an_oversized_length_is_refused_by_its_prefix_alone() -> None:
    assert Deframer(limit=10).feed(frame(b"0123456789")) == [b"0123456789"]
    with pytest.raises(FramingError, match="11 bytes, above the limit of 10"):
        Deframer(limit=10).feed(PREFIX.pack(0, 11))


def test_messages_before_garbage_in_the_same_bytes_do_not_survive_it() -> None:
    with pytest.raises(FramingError):
        Deframer().feed(frame(b"fine") + b"\xff\xff\xff\xff\xff")
