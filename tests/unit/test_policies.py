"""How policies are asked for, and what becomes of their order."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest

from laps.engine.engine import Engine
from laps.engine.selection import rank_by
from laps.engine.table import Request
from laps.engine.types import (
    Capacity,
    Plan,
    PolicySpec,
    Snapshot,
)
from laps.policies.base import OneQueue, PolicyError
from laps.policies.registry import POLICIES, build_policy
from unit.examples import planned, request


@dataclass(frozen=True)
class NewestFirst(OneQueue):
    """A policy that the registry does not know."""

    name: ClassVar[str] = "newest-first"
    queues: ClassVar[tuple[str, ...]] = ("age",)
    key_parts: ClassVar[tuple[str, ...]] = ("-handle",)
    rule: ClassVar[str] = "newest first"

    def key(self, request: Request) -> tuple[float, ...]:
        return (-request.handle, request.arrival_s, request.handle)


def test_the_engine_takes_a_policy_that_is_not_in_the_registry() -> None:
    snapshot = Snapshot(0, 0.0, Capacity(2, 4), tuple(request(handle, 0) for handle in (1, 2, 3)))
    engine = Engine(snapshot, NewestFirst())
    assert engine.plan().order == (3, 2, 1)
    assert engine.policy_spec == PolicySpec("newest-first")
    engine.set_policy(PolicySpec("fcfs"))
    assert engine.plan().order == (1, 2, 3)
    engine.set_policy(NewestFirst())
    assert engine.plan().order == (3, 2, 1)


def test_ties_go_by_arrival_then_handle() -> None:
    requests = [request(3, 0, arrival_s=1.0), request(1, 0, arrival_s=2.0)]
    assert planned(*requests, request(2, 0, arrival_s=1.0)) == [2, 3, 1]


def test_a_plan_names_no_more_than_can_matter() -> None:
    requests = [request(handle, 0) for handle in range(1, 100)]
    snapshot = Snapshot(0, 0.0, Capacity(max_running=3, max_resident=7), tuple(requests))
    plan = Engine(snapshot).plan()
    assert plan.order == tuple(range(1, 11))
    assert plan.horizon == 99


def test_selection_takes_the_named_then_the_new_then_the_old() -> None:
    rank = rank_by(Plan(seq=1, step=1, order=(7, 3, 9), horizon=10))
    assert sorted([1, 2, 3, 7, 9, 10, 11, 12], key=rank) == [7, 3, 9, 11, 12, 1, 2, 10]


def test_selection_without_a_plan_is_by_arrival() -> None:
    assert sorted([4, 2, 9], key=rank_by(Plan())) == [2, 4, 9]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            PolicySpec("lottery"),
            r"no policy 'lottery'; there are: fcfs, laps-sd, laps-sd\+, las, mlfq, priority, sjf, ",
        ),
        (PolicySpec("fcfs", {"quantum": 1}), "no parameter quantum; it has none"),
        (PolicySpec("srtf", {"quantum": 1}), "no parameter quantum; it has: recompute"),
        (PolicySpec("las", {"quantum": 0}), "quantum = 0: .*greater than or equal to 1"),
        (PolicySpec("laps-sd+", {"patience": 0.0}), r"patience = 0.0: .*greater than 0"),
        (PolicySpec("laps-sd+", {"margin": 1.0}), r"margin = 1.0: .*less than 1"),
        (PolicySpec("mlfq", {"levels": 33}), "levels = 33: .*less than or equal to 32"),
        (PolicySpec("laps-sd", {"quanta": 1}), r"no parameter quanta; it has: order, quantum, .*"),
        (PolicySpec("laps-sd", {"order": "lax"}), "order = 'lax': .*'one-scale' or 'strict'"),
        (PolicySpec("laps-sd", {"quantum": 0}), "quantum = 0: .*greater than or equal to 1"),
        (PolicySpec("laps-sd", {"quantum": 2.5}), "quantum = 2.5: .*integer"),
        (PolicySpec("laps-sd", {"quantum": True}), "quantum = True: .*integer"),
        (PolicySpec("laps-sd", {"max_wait_s": "5"}), "max_wait_s = '5': .*number"),
        (PolicySpec("laps-sd", {"max_wait_s": float("nan")}), "max_wait_s = nan: .*finite"),
        (PolicySpec("laps-sd", {"ratio": 0.5, "levels": 0}), "ratio = 0.5: .*; levels = 0: "),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(spec: PolicySpec, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        build_policy(spec)


def test_whole_numbers_are_taken_for_fractions() -> None:
    build_policy(PolicySpec("laps-sd", {"max_wait_s": 5, "ratio": 3}))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_page_of_policies_has_every_parameter_with_its_default(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(f"`{name}`"))
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]+)` \|", text, flags=re.MULTILINE))
    assert rows == {
        field.name: str(field.default)
        for field in fields(POLICIES[name])
        if field.default is not MISSING
    }
