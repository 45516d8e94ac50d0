"""Leading successes: what acceptance at one number of drafts says of that at another.

Each draft of a chain is taken to be accepted with probability p if the one before it was, and
verification stops at the first that is not (Leviathan et al. 2023, arXiv 2211.17192). Of d drafts
p + p^2 + ... + p^d are then accepted on average: fewer than without an end, for the chain is cut
off at d. SGLang changes the number of drafts at run time only where drafts are such a chain
(`adaptive_unsupported_reason`: topk 1).
"""

from __future__ import annotations

_ITERATIONS = 50
_CLOSE = 1e-12


def expected_accepted(probability: float, drafts: float) -> float:
    """Return how many of `drafts` are accepted; between whole numbers it is a mixture of both."""
    if probability <= 0.0:
        return 0.0
    if probability > 1.0 - 1e-9:
        return drafts
    whole = int(drafts)
    last = probability**whole
    return probability * ((1.0 - last) / (1.0 - probability) + (drafts - whole) * last)


def probability_of(accepted: float, drafts: float) -> float:
    """Return the p of which `accepted` is expected; 1 if all were accepted (or more)."""
    if accepted <= 0.0:
        return 0.0
    if accepted >= drafts:
        return 1.0
    if drafts <= 1.0:
        return accepted / drafts
    # What p would be without an end, too low, and what it would be if only the first draft counted.
    low, high = accepted / (1.0 + accepted), min(accepted, 1.0)
    before, off_before = low, expected_accepted(low, drafts) - accepted
    p = high
    # The secant, kept inside what is known to hold the root: the sum grows with p.
    for _ in range(_ITERATIONS):
        off = expected_accepted(p, drafts) - accepted
        if abs(off) < _CLOSE or high - low < _CLOSE:
            break
        low, high = (low, p) if off > 0.0 else (p, high)
        step = off - off_before
        before, off_before, p = p, off, p - off * (p - before) / step if step else low
        if not low < p < high:
            p = 0.5 * (low + high)
    return p


def at_drafts(accepted: float, before: float, drafts: float) -> float:
    """Return what is expected of `drafts`, where `accepted` of `before` were on average."""
    if before == drafts:
        return accepted
    return expected_accepted(probability_of(accepted, before), drafts)
