"""Whether an unanswered START was queued by our own load: literal histories on a clock of milliseconds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqstress.verdict.slots import MARGIN_NS, REAPER_POLL_NS, SlotBook

MS = 1_000_000
IDLE_MS = 1000
RELEASE_MS = IDLE_MS + (REAPER_POLL_NS + MARGIN_NS) // MS


class Book:
    """A SlotBook on milliseconds."""

    def __init__(self, slots):
        self.book = SlotBook(slots, IDLE_MS * MS)

    def started(self, key, at, takes_over=None):
        self.book.started(key, at * MS, takes_over)

    def served(self, key, sent, at):
        self.book.answered_start(key, sent * MS, at * MS)

    def ended(self, key, at):
        self.book.ended(key, at * MS)

    def abandoned(self, key, last_sent, at):
        self.book.abandoned(key, last_sent * MS, at * MS)

    def overloaded(self, key, sent, now):
        return self.book.was_overloaded(key, sent * MS, now * MS)


@pytest.fixture
def full():
    """Two slots, both held since 0."""
    book = Book(2)
    for key in ("a", "b"):
        book.started(key, 0)
        book.served(key, 0, 1)
    return book


def test_a_start_beyond_the_slots_was_queued_by_us(full):
    full.started("c", 10)
    assert full.overloaded("c", 10, 5000)


def test_a_start_that_had_a_slot_was_not(full):
    assert not full.overloaded("b", 0, 5000)


def test_one_moment_with_a_free_slot_is_enough_to_serve_it(full):
    full.started("c", 10)
    full.ended("a", 4000)
    full.started("d", 4001)
    assert not full.overloaded("c", 10, 5000)
    assert full.overloaded("d", 4001, 5000)


def test_waiting_ones_count_so_others_may_end_and_be_replaced(full):
    for place, key in enumerate("cdef"):
        full.started(key, 10 + place)
    full.ended("a", 1000)
    full.ended("b", 1001)
    assert full.overloaded("f", 13, 5000)


def test_an_abandoned_sequence_holds_its_slot_until_it_is_reaped(full):
    full.abandoned("a", 100, 150)
    full.started("c", 200)
    assert full.overloaded("c", 200, 100 + RELEASE_MS - 1)
    assert not full.overloaded("c", 200, 100 + RELEASE_MS)


def test_one_that_was_served_after_its_idle_limit_is_reaped_at_the_next_poll(full):
    full.abandoned("a", 0, 3000)
    full.started("c", 10)
    assert full.overloaded("c", 10, 3000 + RELEASE_MS - IDLE_MS - 1)


def test_a_start_over_an_open_sequence_takes_its_slot():
    book = Book(1)
    book.started("a", 0)
    book.abandoned("a", 0, 5)
    book.started("b", 10, takes_over="a")
    assert book.book.open_count == 1
    assert not book.overloaded("b", 10, 5000)


def test_an_id_reused_right_behind_its_end_is_a_second_sequence():
    book = Book(1)
    book.started("first", 0)
    book.started("second", 0)
    assert book.overloaded("second", 0, 900)


def test_a_later_start_that_was_served_proves_ours_lost(full):
    full.started("c", 10)
    full.started("d", 200)
    full.served("d", 200, 2000)
    assert full.overloaded("c", 10, 2050), "an answer of this very moment proves nothing yet"
    assert not full.overloaded("c", 10, 5000)


def test_a_start_sent_within_the_margin_proves_nothing(full):
    full.started("c", 10)
    full.started("d", 90)
    full.served("d", 90, 2000)
    assert full.overloaded("c", 10, 5000)


def test_a_later_start_that_took_over_a_slot_did_not_pass_the_backlog(full):
    full.started("c", 10)
    full.started("a2", 500, takes_over="a")
    full.served("a2", 500, 501)
    assert full.overloaded("c", 10, 5000)


def test_a_start_that_waited_until_its_answer_was_queued_for_the_steps_behind_it(full):
    full.started("c", 10)
    full.ended("a", 1200)
    full.served("c", 10, 1205)
    assert full.overloaded("c", 10, 1300)
    full.started("d", 1210)
    full.ended("b", 1220)
    assert full.overloaded("c", 10, 1300), "what happens after its answer changes nothing"


def test_a_start_that_was_served_long_after_a_slot_was_free_did_not_wait_for_us(full):
    full.started("c", 10)
    full.ended("a", 1000)
    full.served("c", 10, 1205)
    assert not full.overloaded("c", 10, 1300)


def test_a_served_start_that_had_a_slot_at_once_was_not_queued(full):
    assert not full.overloaded("a", 0, 1300)


def test_what_is_not_known_was_not_queued(full):
    assert not full.overloaded("nobody", 0, 5000)


def test_ending_twice_or_abandoning_the_unknown_changes_nothing(full):
    full.ended("a", 10)
    full.ended("a", 11)
    full.abandoned("a", 0, 12)
    assert full.book.open_count == 1


@settings(max_examples=60)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 400), st.integers(1, 900)), max_size=40))
def test_on_a_healthy_server_every_waiting_start_is_excused(slots, arrivals):
    """A first-in-first-out server with so many slots: whoever waits there at any moment, waits by our own
    load."""
    moments, at = [], 0
    free_at = [0] * slots
    for number, (gap, hold) in enumerate(arrivals):
        at += gap
        begin = max(at, min(free_at))
        free_at[free_at.index(min(free_at))] = begin + hold
        moments += [(at, 1, number, at), (begin, 2, number, at), (begin + hold, 0, number, at)]
        if begin - at > 1:
            moments.append((begin - 1, 3, number, at))
    book = Book(slots)
    for now, kind, number, sent in sorted(moments):
        if kind == 0:
            book.ended(number, now)
        elif kind == 1:
            book.started(number, now)
        elif kind == 2:
            book.served(number, sent, now)
        else:
            assert book.overloaded(number, sent, now)
