"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a busy machine any example may be slow; no test asserts on time.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
