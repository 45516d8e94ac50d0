"""What of a request tells how long its answer will be: a row of `COLUMNS` numbers, mostly 0.

A scheduler has no text, so it is tokens that count: which there are, and which follow each other.
Each is hashed into one of a fixed number of columns (the hashing trick: Weinberger et al. 2009,
arXiv 0902.2206), so that no vocabulary has to be known.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from laps.engine.classes import RequestClass

_TOKENS = 1 << 16
"""Columns for tokens and pairs of them."""
_CLASSES = 1 << 8
COLUMNS = _TOKENS + _CLASSES + 1
"""Those, the columns for classes, and one for the prompt's length."""

_LONG = 1 << 15
"""Prompts of more tokens are all alike: rows much longer than 1 make gradient descent diverge."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without a pattern, of the golden ratio (Knuth, volume 3, section 6.4)."""


class Features(NamedTuple):
    """One request, in 2 KB at most."""

    places: NDArray[np.uint16]
    """Columns of the tokens and pairs, ascending, none twice."""
    kind: int
    """Column of the class (`laps.engine.classes`)."""
    length: float
    """Logarithm of the prompt's length, moved and scaled to about 0 and 1."""


def features(
    tokens: NDArray[np.int64], prompt_tokens: int, request_class: RequestClass
) -> Features:
    """Return the features of a request.

    `tokens` are those of the prompt that count, `prompt_tokens` is how many it has in all.
    """
    words = _mixed(tokens.astype(np.uint64) + np.uint64(1))
    pairs = _mixed(words[:-1] * np.uint64(3) + words[1:])
    places = np.concatenate((words, pairs)) >> np.uint64(48)
    return Features(
        np.unique(places.astype(np.uint16)),
        _TOKENS + zlib.crc32(repr(request_class).encode()) % _CLASSES,
        (math.log(min(max(prompt_tokens, 1), _LONG)) - 4.0) / 2.0,
    )


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return values whose upper bits depend on all bits of `values`."""
    values = values * _SPREAD
    return (values ^ (values >> np.uint64(32))) * _SPREAD
