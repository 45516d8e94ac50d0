"""Times of verify rounds that were measured on a GPU (`bench/gpu/record.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim.physics import Buckets

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
CAPTURED = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48)
"""Sizes of batch for which SGLang captures CUDA graphs up to 48: others are padded to the next."""


def measured_rounds(drafts: str) -> Buckets:
    """Return the round times of a recording, `chain` or `tree`: the median of each captured size.

    Where chance makes a larger size quicker, it is taken to be as quick as the one before.
    """
    with np.load(RESULTS / f"steps-{drafts}.npz") as steps:
        running, round_s = steps["running"], steps["round_s"]
    # Rounds that another step came between have no time.
    running, round_s = running[round_s > 0], round_s[round_s > 0]
    sizes = np.searchsorted(CAPTURED, running)
    medians = [float(np.median(round_s[sizes == index])) for index in range(len(CAPTURED))]
    rising = np.maximum.accumulate(medians).tolist()
    return Buckets(tuple(zip(CAPTURED, rising, strict=True)))
