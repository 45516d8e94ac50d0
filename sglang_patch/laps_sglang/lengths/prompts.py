"""What a scheduler tells its planner process besides reports, so that lengths can be learnt.

No token goes farther than to that process, on the same host.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from laps.engine.types import Handle

HEAD, TAIL = 128, 384
"""Tokens of a long prompt that count: it begins with whose it is, and ends with what is asked."""
MOST = 10_000
"""Requests that are kept while there is no planner process; the oldest are forgotten first."""


def ends(tokens: Sequence[int]) -> array[int]:
    """Return the tokens of a prompt that count, as 64-bit integers."""
    if len(tokens) <= HEAD + TAIL:
        return array("q", tokens)
    return array("q", tokens[:HEAD]) + array("q", tokens[-TAIL:])


class Told(NamedTuple):
    """Sent before the report in which these requests arrive, or finish."""

    prompts: tuple[tuple[Handle, bytes], ...]
    """The ends of the prompts of those that arrived, as bytes."""
    lengths: tuple[tuple[Handle, int], ...]
    """Output tokens of those that finished; an aborted one teaches nothing."""


class PromptLog:
    """Prompts of requests that arrived, and lengths of those that finished, since the last look."""

    def __init__(self) -> None:
        self._prompts: deque[tuple[Handle, bytes]] = deque(maxlen=MOST)
        self._lengths: deque[tuple[Handle, int]] = deque(maxlen=MOST)

    def arrived(self, handle: Handle, tokens: Sequence[int]) -> None:
        """Note the prompt of a request."""
        self._prompts.append((handle, ends(tokens).tobytes()))

    def finished(self, handle: Handle, output_tokens: int) -> None:
        """Note that a request ran to its end."""
        self._lengths.append((handle, output_tokens))

    def take(self) -> Told | None:
        """Return what was noted since the last call, None if nothing was."""
        if not self._prompts and not self._lengths:
            return None
        told = Told(tuple(self._prompts), tuple(self._lengths))
        self._prompts.clear()
        self._lengths.clear()
        return told
