"""Pausing changes when a token comes and never which: outputs equal stock SGLang's, id by id.

Requests are greedy, weights and KV cache float32, and the order is random at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from e2e.fake_random_service import fake_random_service
from e2e.load import Output, ask_all
from e2e.servers import (
    ADAPTIVE,
    CHAIN,
    EAGLE3,
    NGRAM,
    OVERLAP,
    PLAIN,
    SMOLLM2,
    SYNC,
    TREE,
    Variant,
    assert_clean,
    flush,
    internal_state,
    laps_block,
    sglang,
    until,
)
from e2e.stock import Stock, jobs_of

MAX_RUNNING = 4
# The engine tests run every form of draft in both loops; here each form and each loop is seen.
# Those of a group run together: most of the time is Python importing modules.
GROUPS = (
    ((PLAIN, OVERLAP), (TREE, SYNC), (TREE, OVERLAP)),
    ((CHAIN, SYNC), (NGRAM, OVERLAP)),
    ((EAGLE3, OVERLAP), (ADAPTIVE, OVERLAP)),
    ((SMOLLM2, SYNC),),
)
Case = tuple[Variant, str]
CASES = [
    pytest.param(group, case, id=f"{case[0].name}-{case[1]}") for group in GROUPS for case in group
]


@dataclass(frozen=True)
class Served:
    """What a server answered, what it said of itself, and the draft lengths that it reported."""

    outputs: dict[str, Output]
    state: dict[str, Any]
    drafts: set[int]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Sequence[Case]], dict[Case, Served]]:
    """Runs a group at the first call for it."""

    @cache
    def run(group: Sequence[Case]) -> dict[Case, Served]:
        logs = tmp_path_factory.mktemp("identity")
        with ThreadPoolExecutor() as pool:
            return dict(zip(group, pool.map(partial(serve, logs=logs), group), strict=True))

    return run


def serve(case: Case, logs: Path) -> Served:
    """Run the jobs on a server whose requests run in random order, a few at a time."""
    variant, loop = case
    drafts: set[int] = set()
    with fake_random_service(drafts=drafts) as address:
        laps = ("--laps-endpoint", address, "--laps-max-running", str(MAX_RUNNING))
        with sglang(variant, logs / f"{variant.name}-{loop}.log", *laps, loop=loop) as server:
            assert until(lambda: flush(server))
            assert until(lambda: laps_block(server)["decided_by"] == "service")
            outputs = ask_all(server.base_url, jobs_of(variant))
            assert_clean(server)
            return Served(outputs, internal_state(server), drafts)


@pytest.mark.parametrize(("group", "case"), CASES)
def test_outputs_equal_those_of_stock_sglang(
    served: Callable[[Sequence[Case]], dict[Case, Served]],
    group: Sequence[Case],
    case: Case,
    stock: Stock,
) -> None:
    variant, loop = case
    found = served(group)[case]
    expected = stock.outputs(variant)
    assert found.outputs == expected
    assert found.state["disable_overlap_schedule"] == (loop == SYNC)
    assert found.state["laps"]["decided_by"] == "service"
    assert found.state["laps"]["pauses"] > MAX_RUNNING
    if variant is not SMOLLM2:
        assert {output.finish_reason for output in expected.values()} == {"length", "stop"}
    # Reports tell the draft length of their round, also where it changes as the server runs.
    if variant is ADAPTIVE:
        assert len(found.drafts) > 2
        assert found.drafts <= {0, 1, 2, 3, 4}
    elif variant.shape is not None:
        assert found.drafts == {variant.shape[2] - 1}
