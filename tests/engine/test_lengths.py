"""Lengths learnt from prompts by a planner process, of requests that SGLang's real loop serves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.fake_model import reference
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from laps import wire
from laps.engine.types import PolicySpec
from laps_sglang.lengths.learner import ENOUGH
from laps_sglang.lengths.prompts import PromptLog
from laps_sglang.planner import PlannerProcess
from laps_sglang.planner import Setup as PlannerSetup

pytestmark = pytest.mark.engine

STORY, SUM = 0, 1
"""Tokens at the end of a prompt, by which the answer is long or short."""
LONGEST = 32
EXAM = [STORY] * 4 + [SUM] * 4
PATIENCE_S = 60.0


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_requests_of_two_kinds_come_to_be_told_apart(tmp_path: Path) -> None:
    """Nobody says how long an answer will be; `sjf` comes to serve short ones before older ones."""
    loop = RealLoop(Setup(slots=16, max_running=1))
    loop.worker.ledger.prompts = PromptLog()
    setup = PlannerSetup(
        wire.WorkerIdentity("test/dp0", 1),
        PolicySpec("sjf"),
        length_model=tmp_path / "lengths.npz",
    )
    planner = PlannerProcess(setup, loop.worker.snapshot, loop.worker.ledger.prompts)
    draw = random.Random(0)
    lessons: list[Any] = []
    exam: list[Any] = []
    finished: list[int] = []

    def submit(rid: str, kind: int) -> Any:
        prompt = [*(draw.randrange(100, 200) for _ in range(10)), kind]
        text = reference(prompt, LONGEST)
        # All may be as long as any; what ends them is a token.
        end = text[draw.randint(20, 28) if kind == STORY else draw.randint(2, 4)]
        return loop.submit(rid, prompt, LONGEST, stop_token_ids=[end])

    def learnt() -> dict[str, Any]:
        known: Any = planner.describe().get("length_model", {})
        return {"learnt": 0, "predicts": False, **known}

    def abreast() -> bool:
        planner.submit(None)
        planner.newest()
        return planner.step == loop.worker.ledger.step

    def script(iteration: int) -> bool:
        # The planner process keeps up, so that the order in force is that of what is there.
        assert until(abreast)
        if not learnt()["predicts"]:
            if sum(not req.finished() for req in lessons) < 2:
                lessons.append(submit(f"lesson {len(lessons)}", draw.choice((STORY, SUM))))
        elif not exam:
            if all(req.finished() for req in lessons):
                exam.extend(submit(f"exam {i}", kind) for i, kind in enumerate(EXAM))
        else:
            done = [i for i, req in enumerate(exam) if req.finished() and i not in finished]
            finished.extend(done)
        return len(finished) == len(EXAM)

    try:
        loop.plan_with(planner)
        loop.run(script, limit=20_000)
        assert learnt()["learnt"] >= ENOUGH
        assert learnt()["error"] < 0.5 * learnt()["error_of_mean"]
        # The first one may have begun before there was a plan that knew of the others.
        assert [EXAM[i] for i in finished[1:]] in (
            [SUM] * 4 + [STORY] * 3,
            [SUM] * 3 + [STORY] * 4,
        )
        loop.check_no_leak()
    finally:
        planner.close()
        loop.close()
