"""Newcomers share prefills: while one runs nobody decodes, be it of one request or of two.

A prefill of a prompt of usual length takes about as long as a verify round, because both read all
weights once; who joins it adds little. So it pays to have fewer and larger ones, in two ways:

- *Who displaces others waits for company.* While residents fill the batch, nothing idles when those
  who would displace some of them are not admitted yet. Waiting one round more costs each of the m
  newcomers a round. It brings `rate` others, on average, and each of these spares all who run a
  prefill: a round each. Hence they wait as long as m < rate * running.
- *Those next in line come along*, up to that number. They pause after the prefill, and fill the
  next free places at once.

With few arrivals nobody waits and nobody comes along; near capacity, with 16 running, two or three
share a prefill. No source: our own rule.
"""

from __future__ import annotations

from math import ceil

PATIENCE = 8
"""Steps that a newcomer waits for company at most: they are added to its first token."""
SHORT = 4096
"""Tokens to compute of one who comes along, at most: more would be no little addition."""
MEMORY = 256
"""Steps after which an admission counts 1/e in the rate of admissions."""


class Company:
    """How the newcomers of one worker share prefills. Steps are numbered by the host, ascending."""

    def __init__(self) -> None:
        self._rate = 0.0
        """Admissions per step, as of `_rated_at`."""
        self._rated_at = 0
        self._since: int | None = None

    def waits(self, newcomers: int, running: int, step: int) -> bool:
        """Return whether `newcomers` are to wait in this step, in which `running` others decode.

        Called once in every step, with 0 if nobody is to be admitted.
        """
        if not newcomers:
            self._since = None
            return False
        if self._since is None:
            self._since = step
        return step - self._since < PATIENCE and newcomers < self.size(running, step)

    def size(self, running: int, step: int) -> int:
        """Return how many should share a prefill for which `running` others wait."""
        return ceil(self._rate_at(step) * running)

    def admitted(self, newcomers: int, step: int, some_left: bool = False) -> None:
        """Take note of a prefill with so many newcomers, after whom the next one's wait is its own.

        Unless there were none in it (what SGLang admits of its own accord is no company), or
        `some_left` out for want of room: then the wait goes on.
        """
        self._rate = self._rate_at(step) + newcomers / MEMORY
        self._rated_at = step
        if newcomers and not some_left:
            self._since = None

    def _rate_at(self, step: int) -> float:
        return self._rate * (1.0 - 1.0 / MEMORY) ** (step - self._rated_at)
