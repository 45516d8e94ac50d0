"""Whether memory is short on a worker, so that who runs costs another one its KV cache."""

from __future__ import annotations

LASTS = 1000
"""Rounds for which memory counts as short after a request lost its KV cache. That is long against
the rounds between two losses where there are many, so that it does not go back and forth, and short
against a change of load."""


class Shortage:
    """Tells a shortage by what it does: requests lose their KV cache (`StepReport.requeued`).

    So it needs no model of a worker's admission, which holds back memory for tokens to come.
    """

    def __init__(self) -> None:
        self.crowd = 0
        """While memory is short: the live requests, as the power of two that they were below when
        there were more or less than a quarter as many. Else 0."""
        self._until = 0

    def lose(self, rounds: int) -> None:
        """A request lost its KV cache after so many rounds of the worker."""
        self._until = rounds + LASTS

    def changes(self, rounds: int, live: int) -> bool:
        """Judge anew, with so many rounds done and live requests; return whether `crowd` moved."""
        crowd = self.crowd
        if rounds >= self._until:
            self.crowd = 0
        elif not crowd // 4 <= live < crowd:
            self.crowd = 1 << live.bit_length()
        return self.crowd != crowd
