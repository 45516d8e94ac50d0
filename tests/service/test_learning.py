"""What the service learns from requests that left, and says of its own estimates."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest

from laps.client import LapsClient, PolicySpec
from laps.engine.types import Hints, Phase, Progress
from laps.service.app import Service
from service.fake_worker import FakeWorker, arrival


async def test_what_one_worker_finishes_teaches_the_others_of_its_model(service: Service) -> None:
    async with (
        FakeWorker(service.address, "a") as a,
        FakeWorker(service.address, "b") as b,
        FakeWorker(service.address, "c", model="another") as c,
        LapsClient(service.address) as client,
    ):
        for worker in (a, b, c):
            await worker.attach()
        grown = Progress(output_tokens=40, rounds=10, proposed=40, accepted=30, accepted_sq=90)
        await a.report(1, arrived=(arrival(1, phase=Phase.RUNNING, progress=grown),))
        await a.report(2, finished=(1,))
        for worker in (b, c):
            await worker.report(1, arrived=(arrival(1, rid=worker.identity.worker_id),))
        listing = await client.list_requests()
        assert {request.rid: request.predicted_tokens for request in listing} == {"b": 40, "c": 100}
        # Acceptance as well: 3 of 4 drafts a round, against none that is known of.
        await client.set_policy(PolicySpec("laps-sd+"))
        rounds_left = [exp((await client.explain(rid)).key[0].value) for rid in ("b", "c")]
        assert rounds_left == pytest.approx([40 / 4, 100])


async def test_how_far_off_estimates_were_is_shown(service: Service) -> None:
    a_round: dict[str, Any] = {"decoded": (1,), "committed": (1,), "drafts": 4, "round_s": 0.1}
    async with FakeWorker(service.address) as worker, LapsClient(service.address) as client:
        await worker.attach([arrival(1, hints=Hints(predicted_tokens=13))])
        await worker.report(1, prefilled=(1,))
        for step in range(2, 9):
            await worker.report(step, **a_round)
        [status] = await client.list_workers()
        assert (status.estimates, status.estimate_error, status.estimate_bias) == (0, 0.0, 0.0)
        # Perceived after 4 rounds, with 5 tokens: 8 rounds were expected, and 4 came.
        await worker.report(9, **a_round, finished=(1,))
        [status] = await client.list_workers()
        assert status.estimates == 1
        assert status.estimate_error == pytest.approx(1.0)
        assert status.estimate_bias == pytest.approx(1.0)
