"""What the raw data calls the systems that are compared, but for policies of the service."""

from __future__ import annotations

STOCK = "stock"
"""SGLang as it is: first come, first served."""
STOCK_PRIORITY = "stock-priority"
"""SGLang as it is, with priorities of its own."""
ORACLE = "oracle"
"""The service, told of every request's rounds."""
BLIND = "laps-sd+ blind"
"""`laps-sd+` without knowing acceptance; simulated only."""
EMBEDDED, REMOTE = "embedded", "remote"
"""The patched server, deciding by itself and under a service."""
MODES = (STOCK, EMBEDDED, REMOTE)
RIVALS = (STOCK, STOCK_PRIORITY, "fcfs", "srtf", "mlfq")


def in_tables(policy: str) -> tuple[int, str]:
    """Return the place of a policy among others: the rivals, then ours, and the oracle last."""
    if policy in RIVALS:
        return RIVALS.index(policy), ""
    return len(RIVALS) + (policy == ORACLE), policy
