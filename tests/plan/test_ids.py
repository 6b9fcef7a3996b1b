"""Correlation IDs: unique, disjoint, in range, of the shape that their layout promises."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.errors import InputError
from seqstress.plan.ids import IdLayout, IdsExhaustedError, IdSpace, scatter

NONCES = st.integers(0, 2**64 - 1)
WORKERS = st.integers(0, 1023)


@pytest.mark.parametrize("layout", IdLayout)
@given(nonce=NONCES, worker=WORKERS)
def test_ids_are_positive_distinct_and_fit_63_bits(layout: IdLayout, nonce: int, worker: int) -> None:
    space = IdSpace(nonce, worker, layout)
    ids = [space.allocate() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(0 < number < 2**63 for number in ids)


@pytest.mark.parametrize("layout", IdLayout)
@given(nonce=NONCES, workers=st.sets(WORKERS, min_size=2, max_size=5))
def test_workers_of_a_run_share_no_id(layout: IdLayout, nonce: int, workers: set[int]) -> None:
    spaces = [IdSpace(nonce, worker, layout) for worker in workers]
    ids = [space.allocate() for space in spaces for _ in range(30)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("layout", [IdLayout.PACKED, IdLayout.SPARSE, IdLayout.ALIASING])
@given(nonces=st.sets(st.integers(0, 2**21 - 1), min_size=2, max_size=4))
def test_runs_with_different_nonces_share_no_id(layout: IdLayout, nonces: set[int]) -> None:
    ids = [space.allocate() for nonce in nonces for space in [IdSpace(nonce, 3, layout)] for _ in range(30)]
    assert len(set(ids)) == len(ids)


@given(nonce=NONCES, worker=WORKERS)
def test_packed_ids_hold_nonce_worker_and_counter(nonce: int, worker: int) -> None:
    space = IdSpace(nonce, worker, IdLayout.PACKED)
    space.allocate()
    number = space.allocate()
    assert (number >> 42, number >> 32 & 1023, number & 0xFFFF_FFFF) == (nonce & 0x1F_FFFF, worker, 2)


@given(nonce=NONCES, worker=WORKERS)
def test_dense_ids_are_small_and_consecutive(nonce: int, worker: int) -> None:
    space = IdSpace(nonce, worker, IdLayout.DENSE)
    ids = [space.allocate() for _ in range(5)]
    assert ids == list(range(ids[0], ids[0] + 5))
    assert ids[-1] < 2**31


@given(nonce=NONCES, workers=st.sets(WORKERS, min_size=2, max_size=3))
def test_aliasing_ids_differ_in_their_high_bits_only(nonce: int, workers: set[int]) -> None:
    spaces = [IdSpace(nonce, worker, IdLayout.ALIASING) for worker in workers]
    ids = [space.allocate() for space in spaces for _ in range(5)]
    assert len({number % 2**32 for number in ids}) == 1


def test_sparse_ids_lie_far_apart() -> None:
    space = IdSpace(7, 0, IdLayout.SPARSE)
    ids = sorted(space.allocate() for _ in range(1000))
    assert min(later - earlier for earlier, later in itertools.pairwise(ids)) > 2**32


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_scattering_keeps_different_numbers_different(one: int, other: int) -> None:
    assert (scatter(one) == scatter(other)) == (one == other)
    assert 0 <= scatter(one) < 2**63
    assert (scatter(one) == 0) == (one == 0)


@pytest.mark.parametrize("layout", IdLayout)
def test_a_used_up_range_is_an_error_and_never_starts_over(layout: IdLayout) -> None:
    space = IdSpace(0, 1, layout)
    space._counter = space._limit - 2
    last = space.allocate()
    assert 0 < last < 2**63
    for _ in range(2):
        with pytest.raises(IdsExhaustedError, match=layout.value):
            space.allocate()


@pytest.mark.parametrize("worker", [-1, 1024])
def test_a_worker_without_a_range_is_refused(worker: int) -> None:
    with pytest.raises(InputError, match="1024 workers"):
        IdSpace(0, worker, IdLayout.PACKED)
