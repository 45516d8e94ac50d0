"""How long things take: the measured round time, and the paper's time estimate in its terms."""

from __future__ import annotations

import math


class RoundTimer:
    """Mean wall time of a verify round on one worker: an exponentially weighted mean over rounds.

    The time of a round depends on the batch and the model, not on which requests are in it, so
    there is one for the worker and it is measured rather than modelled.
    """

    WEIGHT = 0.1
    """Share of the newest round in the mean: it forgets half in about 7 rounds."""

    def __init__(self) -> None:
        self.round_s = 0.0
        """Seconds per round; 0 before the first measurement."""

    def add(self, round_s: float) -> None:
        """Take in one round of `round_s` seconds; what is not a time above 0 is ignored."""
        if not (math.isfinite(round_s) and round_s > 0.0):
            return
        if self.round_s:
            self.round_s += self.WEIGHT * (round_s - self.round_s)
        else:
            self.round_s = round_s


def remaining_s(rounds: float, round_s: float) -> float:
    """Return T~ = R * round_s, the estimated remaining time in seconds.

    The paper estimates the time of a request of L tokens as L * (n*T_SSM + T_LLM) / (n*A + 1),
    with n drafts a round, acceptance rate A, and T_SSM and T_LLM the times of one draft token and
    of one verification. n*A + 1 is the accept length, so L / (n*A + 1) is a number of rounds, and
    n*T_SSM + T_LLM is the time of one round: here it is measured, batch effects included. With L
    the tokens still to come instead of all of them, the estimate is of the remaining time.
    """
    return rounds * round_s
