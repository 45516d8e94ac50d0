"""When newcomers wait for others to share their prefill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.company import MEMORY, PATIENCE, Company


def busy(admissions: int, step: int = 0) -> Company:
    """A worker that has just admitted so many."""
    company = Company()
    company.admitted(admissions, step)
    return company


def test_nobody_waits_where_nobody_came_before() -> None:
    assert not Company().waits(1, 1000, 1)


@pytest.mark.parametrize(("newcomers", "waits"), [(1, True), (2, True), (3, False), (4, False)])
def test_they_wait_while_others_will_save_more_than_they_lose(newcomers: int, waits: bool) -> None:
    # 16 run, and a request is admitted in 3 of 16 steps: up to 3 share a prefill.
    company = busy(MEMORY * 3 // 16)
    assert company.waits(newcomers, 16, 0) is waits
    assert company.size(16, 0) == 3


def test_a_rate_fades_when_nobody_comes() -> None:
    company = busy(MEMORY)  # one in each step
    assert company.waits(1, 2, 0)
    assert not company.waits(1, 2, MEMORY)  # e is more than 2


def test_the_wait_has_an_end_and_begins_anew_with_the_next() -> None:
    company = busy(10 * MEMORY)
    waited = [company.waits(1, 16, step) for step in range(PATIENCE + 3)]
    assert waited == [True] * PATIENCE + [False] * 3
    company.admitted(1, PATIENCE + 3)
    assert company.waits(1, 16, PATIENCE + 4)
    # Whoever waited has left: the next one's wait is its own.
    assert not company.waits(0, 16, PATIENCE + 5)
    assert all(company.waits(1, 16, PATIENCE + 6 + step) for step in range(PATIENCE))


def test_who_found_no_room_does_not_wait_anew() -> None:
    company = busy(10 * MEMORY)
    assert all(company.waits(2, 16, step) for step in range(PATIENCE))
    assert not company.waits(2, 16, PATIENCE)
    company.admitted(1, PATIENCE, some_left=True)
    assert not company.waits(1, 16, PATIENCE + 1)


def test_a_prefill_without_newcomers_ends_nobodys_wait() -> None:
    company = busy(10 * MEMORY)
    assert all(company.waits(1, 16, step) for step in range(PATIENCE))
    company.admitted(0, PATIENCE - 1)
    assert not company.waits(1, 16, PATIENCE)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 64), st.integers(1, 5)), min_size=1, max_size=60
    )
)
def test_no_newcomer_waits_longer_than_its_patience(
    script: list[tuple[int, int, int]],
) -> None:
    company, step = Company(), 0
    since: int | None = None
    for newcomers, running, gap in script:
        step += gap
        if company.waits(newcomers, running, step):
            since = step if since is None else since
            assert step - since < PATIENCE
        else:
            since = None
            if newcomers:
                company.admitted(newcomers, step)
