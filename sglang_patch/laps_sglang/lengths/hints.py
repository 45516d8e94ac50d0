"""Predicted lengths as hints, in the planner process: for requests whose clients gave none."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from laps.engine.classes import class_of
from laps.engine.types import Arrival, Handle, Snapshot, StepReport
from laps_sglang.lengths.features import Features, features
from laps_sglang.lengths.learner import LengthLearner
from laps_sglang.lengths.prompts import Told
from laps_sglang.lengths.state import LengthModelError, State, load, new_state, save

logger = logging.getLogger(__name__)

SAVE_S = 30.0
"""How often what was learnt is saved, at most."""
SHOW_S = 1.0
_SHOWN = 64
"""What `/server_info` shows is made anew after so many requests, or so long; the scheduler's thread
takes it in each time."""
_MOST_TO_LEARN = 1000


class LengthHints:
    """Puts predictions into what the scheduler sends, and learns while nothing comes.

    All methods belong to the thread that reads the scheduler's pipe.
    """

    def __init__(self, path: Path, saves: bool) -> None:
        self._path = path
        self._saves = saves
        self._learner = LengthLearner(self._begin())
        self._saved = self._learner.state.learnt, time.monotonic()
        self._prompts: dict[Handle, bytes] = {}
        """Of requests whose arrival is yet to be reported."""
        self._live: dict[Handle, Features] = {}
        self._predicted: dict[Handle, int] = {}
        """Of those of them whose clients said nothing."""
        self._finished: deque[tuple[Features, int]] = deque(maxlen=_MOST_TO_LEARN)
        self._show()

    def _begin(self) -> State:
        """Return what the file holds; it was good when the server started."""
        try:
            return load(self._path) if self._path.exists() else new_state()
        except (LengthModelError, OSError) as error:
            logger.error("laps: learns lengths anew, and leaves the file alone: %s", error)
            self._saves = False
            return new_state()

    def take(self, told: Told) -> None:
        """Take in prompts and lengths; they are of requests in the next report."""
        self._prompts.update(told.prompts)
        for handle, output_tokens in told.lengths:
            if (request := self._live.get(handle)) is not None:
                self._finished.append((request, output_tokens))

    def report(self, report: StepReport) -> StepReport:
        """Return `report` with predictions in it, and forget who left."""
        if report.arrived:
            self._meet(report.arrived)
            report = report._replace(arrived=self._hinted(report.arrived))
        for handle in report.finished + report.aborted:  # perhaps as soon as they arrived
            self._live.pop(handle, None)
            self._predicted.pop(handle, None)
        return report

    def snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Return `snapshot` with what was predicted when its requests arrived.

        After it no prompt is waited for: those left are of requests that came, and perhaps went,
        while there was no planner process to report them to.
        """
        self._meet(snapshot.requests)
        self._prompts.clear()
        return replace(snapshot, requests=self._hinted(snapshot.requests))

    def _meet(self, arrivals: Sequence[Arrival]) -> None:
        silent = {}
        for arrival in arrivals:
            prompt = self._prompts.pop(arrival.handle, None)
            if prompt is not None:
                tokens = np.frombuffer(prompt, np.int64)
                kind = class_of(arrival.hints, arrival.max_new_tokens)
                request = features(tokens, arrival.prompt_tokens, kind)
                self._live[arrival.handle] = request
                if not arrival.hints.predicted_tokens:
                    silent[arrival.handle] = request
        if silent and self._learner.tells:
            logs = self._learner.predict(list(silent.values()))
            self._predicted |= {
                h: round(math.exp(log)) for h, log in zip(silent, logs, strict=True)
            }

    def _hinted(self, arrivals: Sequence[Arrival]) -> tuple[Arrival, ...]:
        return tuple(
            arrival
            if (tokens := self._predicted.get(arrival.handle)) is None
            else replace(arrival, hints=replace(arrival.hints, predicted_tokens=tokens))
            for arrival in arrivals
        )

    def rest(self) -> bool:
        """Do a piece of what can wait: learn from one request, or save. Return whether any was."""
        state = self._learner.state
        if self._finished:
            self._learner.learn(*self._finished.popleft())
            if state.learnt % _SHOWN == 0:
                self._show()
            return True
        if self.description["learnt"] != state.learnt and time.monotonic() - self._shown_s > SHOW_S:
            self._show()
            return True
        learnt, then = self._saved
        if state.learnt == learnt or time.monotonic() - then < SAVE_S:
            return False
        self.save()
        return True

    def save(self) -> None:
        """Save what was learnt, if this process is the one that does, and if it is news."""
        state = self._learner.state
        learnt, _ = self._saved
        self._saved = state.learnt, time.monotonic()
        if not self._saves or state.learnt == learnt:
            return
        try:
            save(state, self._path)
        except OSError as error:
            logger.error("laps: cannot save what was learnt of lengths: %s", error)

    def _show(self) -> None:
        state = self._learner.state
        self._shown_s = time.monotonic()
        self.description: dict[str, object] = {
            "learnt": state.learnt,
            "error": round(state.error, 3) if state.learnt else None,
            "error_of_mean": round(state.error_of_mean, 3) if state.learnt else None,
            "predicts": self._learner.tells,
        }
