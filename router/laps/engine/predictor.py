"""How long a request's output will be."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from laps.engine.survival import Survival, bucket, bucket_end


class Prediction(NamedTuple):
    """A predicted output length, and how long the prediction is good for."""

    tokens: int
    """Total output length."""
    until: int
    """It holds until the output has this many tokens."""
    learnt: bool
    """Whether it rests on what finished before, so that it may change with the next finish."""


class LengthPredictor(Protocol):
    """Predicts output lengths. Asked for a handful of requests in each round: it must be quick."""

    @property
    def version(self) -> int:
        """Moves on whenever predictions change because of what was observed."""

    def observe(self, output_tokens: int) -> None:
        """Learn from a request that finished (not an aborted one) with `output_tokens`."""

    def predict(self, output_tokens: int, max_new_tokens: int, hint: int) -> Prediction:
        """Return the predicted total output length.

        `output_tokens` is what the request has already, `hint` the client's own estimate (0: none).
        The answer is above `output_tokens` and, as far as that allows, at most `max_new_tokens`.
        """


class ConditionalMean:
    """The client's hint, else the mean of the finished outputs that got past this one's length.

    1. While the output is shorter than the client's hint: the hint.
    2. Else the mean length of those among the newest `window` finished requests that got at least
       to the bucket of lengths (`laps.engine.survival`) in which the output is now. So the
       estimate changes as the output leaves a bucket, and requests do not change places with every
       token. Before the first token it is the mean of all.
    3. Else, as nobody got farther: the next power of two tokens; before the first token the limit.
    """

    def __init__(self, window: int = 1000) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 finished request, got {window}")
        self._finished = Survival(window)

    @property
    def version(self) -> int:
        """How often predictions have changed; see `LengthPredictor.version`."""
        return self._finished.version

    def observe(self, output_tokens: int) -> None:
        """Learn a finished length, in O(1)."""
        self._finished.add(max(output_tokens, 0))

    def predict(self, output_tokens: int, max_new_tokens: int, hint: int) -> Prediction:
        """Answer in O(1); see `LengthPredictor.predict`."""
        if hint > output_tokens:
            expected, until, learnt = hint, hint, False
        else:
            expected = self._finished.means[bucket(output_tokens)]
            if expected <= output_tokens:
                expected = 1 << output_tokens.bit_length() if output_tokens else max_new_tokens
            until, learnt = bucket_end(output_tokens), True
        if expected > max_new_tokens:
            expected = max_new_tokens
        if expected <= output_tokens:
            expected = output_tokens + 1
        return Prediction(expected, until if until < expected else expected, learnt)
