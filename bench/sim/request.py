"""A request on a simulated worker, its future included."""

from __future__ import annotations

from laps.engine.types import Arrival


class SimRequest:
    """Progress is written when a request leaves the batch, not at every round."""

    __slots__ = (
        "accept_lengths",
        "arrival",
        "context",
        "done",
        "due",
        "handle",
        "left",
        "resident",
    )

    def __init__(self, arrival: Arrival, accept_lengths: bytes) -> None:
        self.arrival = arrival
        self.handle = arrival.handle
        self.accept_lengths = accept_lengths
        """Accept lengths of all its rounds."""
        self.done = 0
        """Rounds it had had when it was last outside the batch."""
        self.context = arrival.prompt_tokens
        """Prompt and output tokens that it had then."""
        self.due = 0
        """While it is in the batch: the number of the worker's round that is its last."""
        self.left = 0
        """The iteration in which it last left the batch."""
        self.resident = False
        """Whether it holds KV cache."""

    @property
    def fresh(self) -> bool:
        """Whether it has no output token yet."""
        return self.context == self.arrival.prompt_tokens

    def enter(self, next_round: int) -> None:
        """Join the batch whose next round is `next_round`."""
        self.due = next_round + len(self.accept_lengths) - self.done - 1

    def leave(self, next_round: int) -> None:
        """Write the progress made in the batch, whose next round is `next_round`."""
        self.context = self.context_at(next_round)
        self.done = self._done_at(next_round)

    def context_at(self, next_round: int) -> int:
        """Return the prompt and output tokens that it has in the batch before `next_round`."""
        return self.context + sum(self.accept_lengths[self.done : self._done_at(next_round)])

    def _done_at(self, next_round: int) -> int:
        return len(self.accept_lengths) - (self.due - next_round) - 1

    def prefill(self) -> None:
        """Get the token that a prefill brings.

        Who is prefilled again has had tokens from rounds: this one comes off its last round, unless
        nothing else is to come, because a request ends with a round.
        """
        coming = self.accept_lengths
        if not self.fresh and (coming[-1] > 1 or len(coming) - self.done > 1):
            last = coming[-1] - 1
            self.accept_lengths = coming[:-1] + bytes([last] if last else [])
        self.context += 1
