"""How long a request's output will be."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from laps.engine.classes import ByClass, RequestClass
from laps.engine.hinted import HintedLengths
from laps.engine.survival import bucket, bucket_end


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

    def observe(self, output_tokens: int, request_class: RequestClass, hint: int = 0) -> None:
        """Learn from a request that finished (not an aborted one) with `output_tokens`."""

    def predict(
        self,
        output_tokens: int,
        max_new_tokens: int,
        hint: int,
        request_class: RequestClass,
        weigh: bool = False,
    ) -> Prediction:
        """Return the predicted total output length.

        `output_tokens` is what the request has already, `hint` the client's own estimate (0: none):
        taken at its word, or weighed against what finished. The answer is above `output_tokens`
        and, as far as that allows, at most `max_new_tokens`.
        """


class ConditionalMean:
    """The client's hint, else the mean of the finished outputs that got past this one's length.

    1. While the output is shorter than the client's hint: the hint.
    2. Else the mean length of those among the newest `window` finished requests that got at least
       to the bucket of lengths (`laps.engine.survival`) in which the output is now. So the
       estimate changes as the output leaves a bucket, and requests do not change places with every
       token. Before the first token it is the mean of all.
    3. Else, as nobody got farther: the next power of two tokens; before the first token the limit.

    Those in 2 are the requests of the same class, and as if there were `BACK_OFF` more of them, the
    mean of all classes. Nothing of it is in a snapshot: it is handed on, or begun anew.

    Where the hint is to be weighed, the posterior mean (`laps.engine.hinted`) goes before all these
    once enough of the class, else of all, have finished with a hint.
    """

    BACK_OFF = 8
    """Requests of its own class for which those of all classes stand."""

    def __init__(self, window: int = 1000) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 finished request, got {window}")
        self.version = 0
        """How often predictions have changed; see `LengthPredictor.version`."""
        self._finished = ByClass(lambda: HintedLengths(window))

    def observe(self, output_tokens: int, request_class: RequestClass, hint: int = 0) -> None:
        """Learn a finished length, in O(1) on average."""
        tokens = max(output_tokens, 0)
        renewed = self._finished.all.add(tokens, hint)
        renewed |= self._finished.learn(request_class).add(tokens, hint)
        self.version += renewed

    def predict(
        self,
        output_tokens: int,
        max_new_tokens: int,
        hint: int,
        request_class: RequestClass,
        weigh: bool = False,
    ) -> Prediction:
        """Answer in O(1) on average; see `LengthPredictor.predict`."""
        index = bucket(output_tokens)
        expected = self._weighed(index, hint, request_class) if weigh and hint > 0 else 0
        until, learnt = bucket_end(output_tokens), True
        if expected <= output_tokens:
            if hint > output_tokens:
                expected, until, learnt = hint, hint, False
            else:
                expected = self._mean(index, request_class)
        if expected <= output_tokens:
            expected = 1 << output_tokens.bit_length() if output_tokens else max_new_tokens
        if expected > max_new_tokens:
            expected = max_new_tokens
        if expected <= output_tokens:
            expected = output_tokens + 1
        return Prediction(expected, until if until < expected else expected, learnt)

    def _weighed(self, index: int, hint: int, request_class: RequestClass) -> int:
        """Return the posterior mean of the lengths from a bucket on, 0 if there is none yet."""
        own = self._finished.get(request_class)
        known = own if own is not None and own.weighs else self._finished.all
        return known.mean(index, hint) if known.weighs else 0

    def _mean(self, index: int, request_class: RequestClass) -> int:
        """Return the mean of the lengths from a bucket on, 0 if there are none."""
        mean = self._finished.all.lengths.means[index]
        of_class = self._finished.get(request_class)
        if of_class is None or not of_class.lengths.counts[index]:
            return mean
        own = of_class.lengths
        if not mean:  # The means of all are renewed less often.
            return own.means[index]
        count = own.counts[index]
        return (count * own.means[index] + self.BACK_OFF * mean) // (count + self.BACK_OFF)
