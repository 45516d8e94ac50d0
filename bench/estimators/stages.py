"""How far the engine's estimate of a request's service is off, as the request goes on.

The estimate is the paper's T~ in rounds: what a request has had and what it is expected to need
(predicted tokens left over expected accept length), all by the engine's own predictors, which
learn from the requests before it. Times are rounds times the time of a round, so the share by
which T~ is off is that of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean, median

from laps.engine.predictor import ConditionalMean
from laps.engine.prior import AcceptancePrior
from laps.engine.table import Request
from laps.engine.types import Arrival, Hints
from sim.case import Case
from sim.predictions import Lognormal, NoHint, Predictions
from sim.workload import Workload

REQUESTS = 4_000
LEARNING = 1_000
"""Requests at the beginning that are learnt from, and not judged."""
MAX_NEW_TOKENS = 2048

HINTS: dict[str, tuple[Predictions, bool]] = {
    "length known": (Lognormal(0.0), False),
    "hint off by sigma 0.8, at its word": (Lognormal(0.8), False),
    "hint off by sigma 0.8, weighed": (Lognormal(0.8), True),
    "no hint": (NoHint(), True),
}
"""What is known of lengths, and whether the hint is weighed against what finished."""

STAGES: dict[str, Callable[[int], int]] = {
    "before its first round": lambda rounds: 0,
    "after 1 round": lambda rounds: 1,
    "after 4 rounds": lambda rounds: 4,
    "after 16 rounds": lambda rounds: 16,
    "half-way": lambda rounds: rounds // 2,
    "at nine tenths": lambda rounds: rounds * 9 // 10,
}
"""Rounds that a request has had, by those it takes; stages beyond its last round are left out."""


def errors(
    requests: int = REQUESTS, learning: int = LEARNING, seed: int = 7
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and median of |T~ / T - 1| by what is known of lengths, then by stage.

    Requests of the reference case; T is the number of rounds that the request takes.
    """
    table = {}
    for name, (predictions, weigh) in HINTS.items():
        workload = Case(requests=requests, predictions=predictions).draw(seed)
        offs: dict[str, list[float]] = {stage: [] for stage in STAGES}
        for index, estimates in enumerate(served(workload, weigh)):
            took = len(estimates) - 1
            if index >= learning:
                for stage, rounds_had in STAGES.items():
                    had = rounds_had(took)
                    if had < took:
                        offs[stage].append(abs(estimates[had] / took - 1.0))
        table[name] = {stage: (fmean(off), median(off)) for stage, off in offs.items()}
    return table


def served(workload: Workload, weigh: bool) -> Iterator[list[float]]:
    """Yield for each request the rounds that it was estimated to take, after 0, 1, 2, ... of them.

    Requests are served one after the other; each is learnt from once it has finished.
    """
    lengths, acceptance = ConditionalMean(), AcceptancePrior()
    for index in range(len(workload)):
        hint = int(workload.predicted_tokens[index])
        request = Request(
            Arrival(
                handle=index + 1,
                rid=str(index),
                arrival_s=0.0,
                prompt_tokens=1,
                max_new_tokens=MAX_NEW_TOKENS,
                hints=Hints(predicted_tokens=hint),
            )
        )
        request.acceptance.expect(acceptance.predict(request.request_class))
        request.output_tokens = 1  # of its prefill
        first, last = workload.rounds.offsets[index : index + 2]
        estimates = [estimate(request, lengths, weigh)]
        for accept_length in workload.rounds.accept_lengths[first:last].tolist():
            request.output_tokens += accept_length
            request.acceptance.add(accept_length, workload.drafts)
            estimates.append(estimate(request, lengths, weigh))
        yield estimates
        lengths.observe(request.output_tokens, request.request_class, hint)
        acceptance.observe(request.acceptance, request.request_class)


def estimate(request: Request, lengths: ConditionalMean, weigh: bool) -> float:
    """Return the rounds that the request has had and those that it is expected to need."""
    if request.output_tokens >= request.predict_at:
        request.predicted_tokens, request.predict_at, _ = lengths.predict(
            request.output_tokens,
            request.max_new_tokens,
            request.hints.predicted_tokens,
            request.request_class,
            weigh,
        )
    return request.rounds + request.remaining_rounds
