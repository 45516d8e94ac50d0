"""What the plugin adds to a step: the time inside its hooks, less what SGLang's own functions take.

Every hook is called through `Meter.probe`. A hook around one of SGLang's functions is charged for
what it does before and after it; what it makes SGLang do in between (merge and split batches, look
for memory) is charged too, because the call is the hook's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Meter:
    """Seconds by hook, of the step under way and of all steps before."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._step: defaultdict[str, float] = defaultdict(float)
        self._original = 0.0

    def next_step(self) -> None:
        """End the step under way."""
        self.steps.append(dict(self._step))
        self._step.clear()

    def probe(
        self, target: str, kind: str, function: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        """Call a hook, and charge it."""
        start, outer = time.perf_counter(), self._original
        self._original = 0.0
        try:
            if kind == "around":
                return function(self._timed(args[0]), *args[1:], **kw)
            return function(*args, **kw)
        finally:
            name = target.rpartition(".")[2]
            self._step[name] += time.perf_counter() - start - self._original
            self._original = outer

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kw: Any) -> Any:
            start, before = time.perf_counter(), self._original
            try:
                return original(*args, **kw)
            finally:
                self._original = before + time.perf_counter() - start

        return timed
