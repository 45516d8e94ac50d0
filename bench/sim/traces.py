"""Recorded acceptance: what verification accepted in each round of real requests.

The format is a compressed .npz of three arrays:

    accepted   uint8   accepted drafts, bonus token not counted, of every round of every request
    offsets    int64   request i had rounds accepted[offsets[i] : offsets[i + 1]]
    drafts     int64   draft tokens offered in each round, at most 254 (a scalar)

Requests without a round are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.workload import Bytes, Ints


class TraceError(ValueError):
    """A file that is no recording; the message says what is wrong with it."""


@dataclass(frozen=True)
class Traces:
    """Recorded requests."""

    accepted: Bytes
    offsets: Ints
    drafts: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def save_traces(path: str | Path, requests: Sequence[Sequence[int]], drafts: int) -> None:
    """Write requests, each a list of the accepted drafts of its rounds."""
    kept = [request for request in requests if len(request)]
    offsets = np.concatenate(([0], np.cumsum([len(request) for request in kept])))
    accepted = np.concatenate([np.asarray(request, np.uint8) for request in kept])
    np.savez_compressed(path, accepted=accepted, offsets=offsets.astype(np.int64), drafts=drafts)


def load_traces(path: str | Path) -> Traces:
    """Read a recording; raise TraceError if it is none."""
    try:
        with np.load(path) as file:
            accepted, offsets, drafts = file["accepted"], file["offsets"], int(file["drafts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path} is no recording of acceptance: {error}") from error
    if accepted.dtype != np.uint8 or offsets.dtype != np.int64:
        raise TraceError(f"{path}: accepted must be uint8 and offsets int64")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(accepted):
        raise TraceError(f"{path}: offsets must go from 0 to the number of rounds")
    if np.any(np.diff(offsets) < 1):
        raise TraceError(f"{path}: every request needs a round or more")
    if not 0 <= drafts < 255 or int(accepted.max()) > drafts:
        raise TraceError(f"{path}: a round accepts 0 to {drafts} drafts, and drafts are below 255")
    return Traces(accepted, offsets, drafts)
