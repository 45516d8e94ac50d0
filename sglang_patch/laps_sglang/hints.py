"""What a client says about its request: `custom_params: {"laps": {...}}` in the OpenAI body."""

from __future__ import annotations

import math
from typing import Any

from laps.engine.types import Hints

NO_HINTS = Hints()
MAX_TENANT = 256
"""Characters: a tenant is sent along with its request at every resync."""


class HintError(ValueError):
    """A hint is not usable; the message says which and what it should be."""


def parse_hints(custom_params: Any) -> Hints:
    """Return the hints in a request's `sampling_params.custom_params`; NO_HINTS if it has none.

    Known keys: tenant (string), priority (integer), predicted_tokens (integer of at least 1),
    deadline_s (seconds, above 0). Raises HintError for anything else under "laps".
    """
    if not isinstance(custom_params, dict) or "laps" not in custom_params:
        return NO_HINTS
    given = custom_params["laps"]
    if not isinstance(given, dict):
        raise HintError(f"custom_params.laps must be an object, not {type(given).__name__}")
    unknown = set(given) - {"tenant", "priority", "predicted_tokens", "deadline_s"}
    if unknown:
        raise HintError(
            f"custom_params.laps has no field {sorted(map(str, unknown))}; "
            "it takes tenant, priority, predicted_tokens and deadline_s"
        )
    tenant = given.get("tenant", "")
    if not isinstance(tenant, str) or len(tenant) > MAX_TENANT or not _is_utf8(tenant):
        raise HintError(f"tenant must be a string of at most {MAX_TENANT} characters in UTF-8")
    return Hints(
        tenant=tenant,
        priority=_integer(given, "priority", -(2**31), 2**31 - 1),
        predicted_tokens=_integer(given, "predicted_tokens", 1, 2**31 - 1),
        deadline_s=_seconds(given, "deadline_s"),
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(given: dict[str, Any], name: str, low: int, high: int) -> int:
    if name not in given:
        return 0
    value = given[name]
    # SGLang's own gRPC door turns every number into a float.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not low <= value <= high:
        raise HintError(f"{name} must be an integer from {low} to {high}, not {value!r}")
    return int(value)


def _seconds(given: dict[str, Any], name: str) -> float:
    if name not in given:
        return 0.0
    value = given[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise HintError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)
