"""How long a request's output will be."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from itertools import accumulate
from typing import Protocol


class LengthPredictor(Protocol):
    """Predicts output lengths. Called for every running request at every plan: it must be quick.

    Predictions may change when a length is observed, and only then.
    """

    def observe(self, output_tokens: int) -> None:
        """Learn from a request that finished (not an aborted one) with `output_tokens`."""

    def predict(self, output_tokens: int, max_new_tokens: int, hint: int) -> int:
        """Return the predicted total output length, in tokens.

        `output_tokens` is what the request has already, `hint` the client's own estimate (0: none).
        The answer is above `output_tokens` and, as far as that allows, at most `max_new_tokens`.
        """


class ConditionalMean:
    """The client's hint, else the mean of the finished outputs that got past this one's length.

    1. While the output is shorter than the client's hint: the hint.
    2. Else the mean length of those among the newest `window` finished requests that are longer
       than the output so far.
    3. Else, as nothing is known: the next power of two tokens; before the first token the limit.
       (About as long again as it has run, in steps: an estimate that rose with every token would
       have the requests change places every round.)
    """

    def __init__(self, window: int = 1000) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 finished request, got {window}")
        self._window = window
        self._newest: deque[int] = deque()
        self._lengths: list[int] = []
        self._tail_sums: list[int] | None = None

    def observe(self, output_tokens: int) -> None:
        """Learn a finished length: O(window) moves in C; sums are renewed at the next question."""
        if len(self._newest) == self._window:
            oldest = self._newest.popleft()
            del self._lengths[bisect_right(self._lengths, oldest) - 1]
        self._newest.append(output_tokens)
        insort(self._lengths, output_tokens)
        self._tail_sums = None

    def predict(self, output_tokens: int, max_new_tokens: int, hint: int) -> int:
        """Answer in O(log window); see `LengthPredictor.predict`."""
        if hint > output_tokens:
            expected = hint
        else:
            longer = bisect_right(self._lengths, output_tokens)
            count = len(self._lengths) - longer
            if count:
                expected = -(-self._sums()[count - 1] // count)  # the mean, rounded up
            else:
                expected = 1 << output_tokens.bit_length() if output_tokens else max_new_tokens
        if expected > max_new_tokens:
            expected = max_new_tokens
        return expected if expected > output_tokens else output_tokens + 1

    def _sums(self) -> list[int]:
        """Sum of the k + 1 longest lengths at index k; made anew once after each finish."""
        if self._tail_sums is None:
            self._tail_sums = list(accumulate(reversed(self._lengths)))
        return self._tail_sums
