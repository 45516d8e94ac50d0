"""A plugin of SGLang's that measures its steps, in a stock server and a patched one alike.

It is found through `tap_site`, which `gpu.servers.tapped` puts on a server's PYTHONPATH; no server
that is started otherwise has it. What it saw since it was last asked is in `/server_info`, beside
what the scheduler says of itself, as `bench`.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from gpu.forced import ForcedAcceptance
from gpu.yardstick import loop_s, waited_s
from laps_sglang.compat import SCHEDULER
from laps_sglang.hooks import Hooks
from sim.traces import load_traces
from step.meter import Meter

Hook = Callable[..., Any]
Table = Callable[[Hooks], Sequence[tuple[str, str, Hook]]]

TRACES = "LAPS_BENCH_TRACES"
"""Environment variable with the recording that forces acceptance; unset: none is forced."""
MOST_STEPS = 200_000
"""Steps that are kept: more than any measurement takes between two questions."""
NATIVE = "LAPS_BENCH_NATIVE"
"""Environment variable: if set, layers run as PyTorch has them, for float32, which some of SGLang's
kernels do not take."""
EAGLE_SAMPLE = "sglang.srt.speculative.eagle_worker_common.eagle_sample"
DISPATCH = "sglang.srt.layers.utils.multi_platform.MultiPlatformOp.dispatch_forward"


class Tap:
    """The verify rounds of one scheduler process."""

    def __init__(self, forced: ForcedAcceptance | None, meter: Meter) -> None:
        self._forced = forced
        self._meter = meter
        self._before: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._since = time.perf_counter()
        # Requests of each round, its time, and when it ended, in milliseconds since that.
        self._steps: deque[tuple[int, int, int]] = deque(maxlen=MOST_STEPS)
        # Requests of each prefill, of each round around them, and the time of these together.
        self._stalls: deque[tuple[list[int], list[int], int]] = deque(maxlen=MOST_STEPS)
        # Nanoseconds of a fixed loop after each round, and when that ended.
        self._loops: deque[tuple[int, int]] = deque(maxlen=MOST_STEPS)
        self._waited_s = waited_s()
        self._newest: tuple[int, int, int] | None = None
        self._prefills: list[int] = []
        self._rows = 0
        self._committed = 0

    def took_result(self, result: None, scheduler: Any, batch: Any, outcome: Any) -> None:
        """AFTER hook on `process_batch_result`: time the round, from the result of the one before.

        If some were prefilled between the two, it is a stall and not a step, and so is the round
        before it: in the overlap loop the host prepares a prefill before it takes its result.
        """
        if not batch.forward_mode.is_decode():
            self._prefills.append(len(batch.reqs))
            return
        now = time.perf_counter()
        ended_ms = round((now - self._since) * 1e3)
        rows = len(batch.reqs)
        self._rows += rows
        self._committed += rows + outcome.num_correct_drafts
        self._loops.append((round(loop_s() * 1e9), ended_ms))
        if self._before is not None:
            this = (rows, round((now - self._before) * 1e6), ended_ms)
            if self._prefills:
                rounds = [this] if self._newest is None else [self._newest, this]
                together_us = sum(time_us for _, time_us, _ in rounds)
                sizes = [rows for rows, _, _ in rounds]
                self._stalls.append((self._prefills, sizes, together_us))
                self._newest = None
            else:
                self._keep_newest()
                self._newest = this
        self._prefills = []
        # Behind a round that ends all its requests there may be nothing to do for a while.
        goes_on = any(not req.finished() for req in batch.reqs)
        self._before = now if goes_on else None

    def _keep_newest(self) -> None:
        """Count the newest round as a step: no prefill was behind it."""
        if self._newest is not None:
            self._steps.append(self._newest)
        self._newest = None

    def tell(self, output: Any, scheduler: Any, request: Any) -> Any:
        """AFTER hook on `get_internal_state`: say what there was since the last time."""
        self._keep_newest()
        output.internal_state["bench"] = {
            "steps": [list(step) for step in self._steps],
            "stalls": [list(stall) for stall in self._stalls],
            "rows": self._rows,
            "committed": self._committed,
            "forced_rows": self._forced.rows if self._forced else 0,
            "hooks_s": self._in_hooks(),
            "loops": [list(loop) for loop in self._loops],
            "waited_s": waited_s() - self._waited_s,
        }
        self._clear()
        return output

    def _in_hooks(self) -> float:
        """Return the seconds in our hooks, less what SGLang's own functions took in between."""
        self._meter.next_step()
        return sum(self._meter.steps.pop().values())


def metered(table: Table, meter: Meter) -> Table:
    """Return a method that gives the hooks that `table` gives, called through `meter`.

    That takes some 2 us a hook, which a round of the patched server is longer for.
    """

    def one(target: str, kind: str, hook: Hook) -> Hook:
        @wraps(hook)
        def timed(*args: Any, **kw: Any) -> Any:
            return meter.probe(target, kind, hook, *args, **kw)

        return timed

    def hooks(self: Hooks) -> list[tuple[str, str, Hook]]:
        return [(target, kind, one(target, kind, hook)) for target, kind, hook in table(self)]

    return hooks


def activate() -> None:
    """Entry point (group `sglang.srt.plugins`): tap this process if it is a scheduler's."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if "sglang.srt.managers.scheduler" not in sys.modules:
        return
    path = os.environ.get(TRACES)
    forced = ForcedAcceptance(load_traces(Path(path))) if path else None
    meter = Meter()
    # SGLang finds this plugin first, so that the other one registers hooks that are metered.
    Hooks.table = metered(Hooks.table, meter)  # type: ignore[assignment,method-assign]
    tap = Tap(forced, meter)
    HookRegistry.register(f"{SCHEDULER}.process_batch_result", tap.took_result, HookType.AFTER)
    HookRegistry.register(f"{SCHEDULER}.get_internal_state", tap.tell, HookType.AFTER)
    if forced is not None:
        HookRegistry.register(EAGLE_SAMPLE, forced.sample, HookType.AROUND)
    if os.environ.get(NATIVE):
        HookRegistry.register(DISPATCH, lambda _, layer: layer.forward_native, HookType.AROUND)
