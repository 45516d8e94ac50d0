"""From a policy's name and parameters to the policy."""

from __future__ import annotations

from dataclasses import fields

from pydantic import ValidationError

from laps.engine.types import PolicySpec
from laps.policies.base import Policy, PolicyError
from laps.policies.fcfs import Fcfs
from laps.policies.laps_sd import LapsSd
from laps.policies.laps_sd_plus import LapsSdPlus
from laps.policies.las import Las
from laps.policies.mlfq import Mlfq
from laps.policies.priority import Priority
from laps.policies.sjf import Sjf
from laps.policies.srtf import Srtf

Kind = type[Fcfs | LapsSd | LapsSdPlus | Las | Mlfq | Priority | Sjf | Srtf]
_KINDS: tuple[Kind, ...] = (Fcfs, LapsSd, LapsSdPlus, Las, Mlfq, Priority, Sjf, Srtf)

POLICIES: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every policy by its name."""


def build_policy(spec: PolicySpec) -> Policy:
    """Return the policy that `spec` describes.

    Raises PolicyError for a name, a parameter or a value that does not exist, naming what does.
    """
    kind = POLICIES.get(spec.name)
    if kind is None:
        raise PolicyError(f"no policy {spec.name!r}; there are: {', '.join(sorted(POLICIES))}")
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(spec.parameters) - set(known))
    if unknown:
        exist = f"it has: {', '.join(known)}" if known else "it has none"
        raise PolicyError(f"policy {spec.name!r} has no parameter {', '.join(unknown)}; {exist}")
    try:
        return kind(**spec.parameters)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = (
            f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}" for fault in error.errors()
        )
        raise PolicyError(f"policy {spec.name!r}: {'; '.join(faults)}") from error


def resolve_policy(policy: PolicySpec | Policy) -> tuple[PolicySpec, Policy]:
    """Return a policy with what it is asked for by: of one not of the registry its name alone.

    Raises PolicyError as `build_policy` does.
    """
    if isinstance(policy, PolicySpec):
        return policy, build_policy(policy)
    return PolicySpec(policy.name), policy
