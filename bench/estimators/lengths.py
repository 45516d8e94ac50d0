"""Buckets of lengths: how much a coarser condition costs, and how many predictions it saves."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from statistics import fmean

from laps.engine.predictor import ConditionalMean

LIMIT = 1024
TOKENS_PER_ROUND = 2.5
REQUESTS = 1_500


def errors(seed: int = 7) -> dict[str, tuple[float, float]]:
    """Return mean |log(predicted tokens left / tokens left)| and predictions a request.

    Lengths are lognormal with median 130 and mean 210, clipped to 4..1000.
    """
    draw = random.Random(seed)

    def length() -> int:
        return int(min(max(draw.lognormvariate(4.87, 1.0), 4), 1000))

    finished = sorted(length() for _ in range(1000))
    predictor = ConditionalMean(len(finished))
    for tokens in finished:
        predictor.observe(tokens, "")

    def exact(output: int) -> tuple[int, int]:
        longer = finished[bisect_right(finished, output) :]
        expected = math.ceil(fmean(longer)) if longer else 1 << output.bit_length()
        return max(min(expected, LIMIT), output + 1), output + 1

    def engines(output: int) -> tuple[int, int]:
        prediction = predictor.predict(output, LIMIT, 0, "")
        return prediction.tokens, prediction.until

    lengths = [length() for _ in range(REQUESTS)]
    table = {}
    for name, predict in (("exact, at every round", exact), ("the engine's", engines)):
        offs, predictions = [], 0
        for tokens in lengths:
            output, until, expected = 1.0, 0, 0
            while output < tokens:
                if output >= until:
                    expected, until = predict(int(output))
                    predictions += 1
                left = max(expected - int(output), 1)
                offs.append(abs(math.log(left / (tokens - int(output) + 1))))
                output += TOKENS_PER_ROUND
        table[name] = (fmean(offs), predictions / REQUESTS)
    return table
