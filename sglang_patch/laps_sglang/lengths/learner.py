"""Learns, one finished request after the other, how output lengths go with prompts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDRegressor

from laps_sglang.lengths.features import COLUMNS, Features
from laps_sglang.lengths.state import State

ENOUGH = 256
"""Finished requests before the first prediction; about so many newest ones judge the model."""
KEPT = 2000
"""Newest requests that are learnt from again."""
_AGAIN = 63
"""Most of those that are learnt from along with each new one: at first a quarter of them, so that
what a file told is not drowned by the first few after it."""
_RATE = 0.1
_OF_CLASS = 0.5
"""What a class makes of a row."""


class LengthLearner:
    """A linear model of log output length, by stochastic gradient descent.

    One pass over a stream of requests leaves most of what they tell unlearnt, so that with each new
    one some earlier ones, chosen by chance, are learnt from again (experience replay: Lin, Machine
    Learning 8, 1992). That is as good as a ridge regression over all of them made anew each time,
    at a constant price. What is learnt from again is not in the state: that tells of no request.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._model = SGDRegressor(
            penalty=None, learning_rate="constant", eta0=_RATE, shuffle=False
        )
        self._model.partial_fit(csr_matrix((1, COLUMNS)), [0.0])  # makes the arrays
        self._model.coef_[:] = state.weights
        self._model.intercept_[:] = state.intercept
        self._seen: deque[tuple[Features, float]] = deque(maxlen=KEPT)
        self._draw = np.random.default_rng(0)

    @property
    def tells(self) -> bool:
        """Whether it has learnt enough, and has lately been better than the mean length."""
        return self.state.learnt >= ENOUGH and self.state.error < self.state.error_of_mean

    def predict(self, requests: Sequence[Features]) -> list[float]:
        """Return the log of the output length of each of at least one request.

        A prompt that is like none before can make the line that was fitted go anywhere: nothing is
        predicted to be longer than any output has been.
        """
        logs = self._model.predict(_matrix(requests))
        bounded: list[float] = logs.clip(0.0, self.state.longest).tolist()
        return bounded

    def learn(self, request: Features, output_tokens: int) -> None:
        """Learn from a request that finished with so many tokens."""
        log = float(np.log(max(output_tokens, 1)))
        self._judge(self.predict([request])[0], log)
        if self.state.learnt == 1:
            # Else what all have in common is learnt as if it were due to the first ones' features.
            self._model.intercept_[:] = log
        count = len(self._seen)
        again = self._draw.integers(count, size=min(_AGAIN, count // 4)) if count else ()
        batch = [(request, log), *(self._seen[index] for index in again)]
        self._seen.append((request, log))
        self._model.partial_fit(_matrix([row for row, _ in batch]), [log for _, log in batch])
        self.state.weights = self._model.coef_
        self.state.intercept = float(self._model.intercept_[0])

    def _judge(self, predicted: float, log: float) -> None:
        state = self.state
        state.learnt += 1
        state.longest = max(state.longest, log)
        share = 1.0 / min(state.learnt, ENOUGH)
        state.error += share * (abs(predicted - log) - state.error)
        state.error_of_mean += share * (abs(state.mean - log) - state.error_of_mean)
        state.mean += share * (log - state.mean)


def _matrix(requests: Sequence[Features]) -> Any:
    """Return a sparse row for each of at least one request.

    What the tokens make of a row has the length 1: a long prompt counts as much as a short one.
    """
    columns: list[Any] = []
    values: list[Any] = []
    ends = [0]
    for places, kind, length in requests:
        columns += [places, (kind, COLUMNS - 1)]
        values += [np.full(len(places), 1.0 / math.sqrt(max(len(places), 1))), (_OF_CLASS, length)]
        ends.append(ends[-1] + len(places) + 2)
    cells = np.concatenate(values), np.concatenate(columns), ends
    return csr_matrix(cells, (len(requests), COLUMNS))
