"""Between the engine's values and the contract's messages (`laps.v1`), both ways.

Pure functions on the path of every step: fields are named one by one, nothing is reflected on.
Each `*_to_proto` raises `ValueError` where a value does not fit its field (a negative handle);
each `*_from_proto` raises `WireError` where a message means nothing to the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from laps.engine.types import (
    Arrival,
    Capacity,
    Hints,
    Phase,
    Plan,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)
from laps.v1 import common_pb2, worker_pb2

PROTOCOL = 1
"""Version of the contract that this code speaks (`Hello.protocol`, `Welcome.protocol`)."""


class WireError(ValueError):
    """A message that is well-formed protobuf but has no meaning in the contract."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who a worker is: the part of `laps.v1.Hello` that does not change while it lives."""

    worker_id: str
    incarnation: int
    model: str = ""
    http_url: str = ""
    """Base URL of the worker's OpenAI endpoint."""
    sglang_version: str = ""
    algorithm: str = ""
    """SGLang's name of the speculative algorithm; empty for plain decoding."""
    draft_tokens: int = 0
    """Draft tokens sent to one verification of one request, the bonus token not counted."""


_PHASES = {int(phase): phase for phase in Phase}
# A new request has no phase on the wire: it waits.
_PHASES[common_pb2.PHASE_UNSPECIFIED] = Phase.WAITING
_WIRE_PHASES = {phase: common_pb2.Phase.ValueType(phase) for phase in Phase}
_NO_HINTS = Hints()
_NO_PROGRESS = Progress()


# --- parts ---------------------------------------------------------------------------------------


def phase_from_proto(value: int) -> Phase:
    """Return the phase of `laps.v1.Phase` value `value`; unspecified is WAITING."""
    try:
        return _PHASES[value]
    except KeyError:
        raise WireError(f"unknown phase {value}") from None


def hints_to_proto(hints: Hints) -> common_pb2.Hints:
    return common_pb2.Hints(
        tenant=hints.tenant,
        priority=hints.priority,
        predicted_tokens=hints.predicted_tokens,
        deadline_s=hints.deadline_s,
    )


def hints_from_proto(message: common_pb2.Hints) -> Hints:
    return Hints(
        tenant=message.tenant,
        priority=message.priority,
        predicted_tokens=message.predicted_tokens,
        deadline_s=message.deadline_s,
    )


def capacity_to_proto(capacity: Capacity) -> worker_pb2.Capacity:
    return worker_pb2.Capacity(
        max_running=capacity.max_running,
        max_resident=capacity.max_resident,
        kv_tokens=capacity.kv_tokens,
        batch_sizes=capacity.batch_sizes,
    )


def capacity_from_proto(message: worker_pb2.Capacity) -> Capacity:
    return Capacity(
        max_running=message.max_running,
        max_resident=message.max_resident,
        kv_tokens=message.kv_tokens,
        batch_sizes=tuple(message.batch_sizes),
    )


def policy_to_proto(spec: PolicySpec) -> common_pb2.PolicySpec:
    """Return `spec` with its parameters as JSON. Not a number and infinity raise `ValueError`."""
    parameters = dict(spec.parameters)
    text = json.dumps(parameters, sort_keys=True, allow_nan=False) if parameters else ""
    return common_pb2.PolicySpec(name=spec.name, parameters_json=text)


def policy_from_proto(message: common_pb2.PolicySpec) -> PolicySpec:
    """Return the policy of `message`; whether it exists is the engine's to say."""
    return PolicySpec(message.name, _parse_parameters(message.parameters_json))


def _parse_parameters(text: str) -> Mapping[str, float | int | str | bool]:
    if not text:
        return {}
    try:
        parsed: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"parameters_json is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise WireError('parameters_json must be a JSON object, such as {"max_wait_s": 5}')
    for name, value in parsed.items():
        if not isinstance(value, (float, int, str)):
            raise WireError(f"policy parameter {name!r} must be a number, a string or a boolean")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


# --- requests and reports ------------------------------------------------------------------------


def arrival_to_proto(arrival: Arrival) -> worker_pb2.Request:
    message = worker_pb2.Request(
        handle=arrival.handle,
        rid=arrival.rid,
        arrival_s=arrival.arrival_s,
        prompt_tokens=arrival.prompt_tokens,
        max_new_tokens=arrival.max_new_tokens,
        hints=None if arrival.hints == _NO_HINTS else hints_to_proto(arrival.hints),
        phase=_WIRE_PHASES[arrival.phase],
    )
    progress = arrival.progress
    if progress != _NO_PROGRESS:
        message.output_tokens = progress.output_tokens
        message.rounds = progress.rounds
        message.proposed = progress.proposed
        message.accepted = progress.accepted
        message.accepted_sq = progress.accepted_sq
    return message


def arrival_from_proto(message: worker_pb2.Request) -> Arrival:
    return Arrival(
        handle=message.handle,
        rid=message.rid,
        arrival_s=message.arrival_s,
        prompt_tokens=message.prompt_tokens,
        max_new_tokens=message.max_new_tokens,
        hints=hints_from_proto(message.hints) if message.HasField("hints") else _NO_HINTS,
        phase=phase_from_proto(message.phase),
        progress=Progress(
            output_tokens=message.output_tokens,
            rounds=message.rounds,
            proposed=message.proposed,
            accepted=message.accepted,
            accepted_sq=message.accepted_sq,
        ),
    )


def report_to_proto(report: StepReport) -> worker_pb2.StepReport:
    return worker_pb2.StepReport(
        step=report.step,
        time_s=report.time_s,
        arrived=[arrival_to_proto(arrival) for arrival in report.arrived],
        prefilled=report.prefilled,
        decoded=report.decoded,
        committed=report.committed,
        drafts=report.drafts,
        round_s=report.round_s,
        requeued=report.requeued,
        finished=report.finished,
        aborted=report.aborted,
        plan_seq=report.plan_seq,
    )


def report_from_proto(message: worker_pb2.StepReport) -> StepReport:
    return StepReport(
        step=message.step,
        time_s=message.time_s,
        arrived=tuple([arrival_from_proto(request) for request in message.arrived]),
        prefilled=tuple(message.prefilled),
        decoded=tuple(message.decoded),
        committed=tuple(message.committed),
        drafts=message.drafts,
        round_s=message.round_s,
        requeued=tuple(message.requeued),
        finished=tuple(message.finished),
        aborted=tuple(message.aborted),
        plan_seq=message.plan_seq,
    )


# --- hello ---------------------------------------------------------------------------------------


def hello_to_proto(identity: WorkerIdentity, snapshot: Snapshot) -> worker_pb2.Hello:
    return worker_pb2.Hello(
        worker_id=identity.worker_id,
        incarnation=identity.incarnation,
        protocol=PROTOCOL,
        model=identity.model,
        http_url=identity.http_url,
        sglang_version=identity.sglang_version,
        speculation=worker_pb2.Speculation(
            algorithm=identity.algorithm, draft_tokens=identity.draft_tokens
        ),
        capacity=capacity_to_proto(snapshot.capacity),
        requests=[arrival_to_proto(arrival) for arrival in snapshot.requests],
        step=snapshot.step,
        time_s=snapshot.time_s,
    )


def identity_from_proto(message: worker_pb2.Hello) -> WorkerIdentity:
    return WorkerIdentity(
        worker_id=message.worker_id,
        incarnation=message.incarnation,
        model=message.model,
        http_url=message.http_url,
        sglang_version=message.sglang_version,
        algorithm=message.speculation.algorithm,
        draft_tokens=message.speculation.draft_tokens,
    )


def snapshot_from_proto(message: worker_pb2.Hello) -> Snapshot:
    return Snapshot(
        step=message.step,
        time_s=message.time_s,
        capacity=capacity_from_proto(message.capacity),
        requests=tuple([arrival_from_proto(request) for request in message.requests]),
    )


# --- plans ---------------------------------------------------------------------------------------


def plan_to_proto(plan: Plan, *, unchanged: bool = False) -> worker_pb2.Plan:
    """Return `plan`; with `unchanged` only its numbers, for a peer that holds the same order."""
    if unchanged:
        return worker_pb2.Plan(seq=plan.seq, step=plan.step, unchanged=True)
    return worker_pb2.Plan(seq=plan.seq, step=plan.step, order=plan.order, horizon=plan.horizon)


def plan_from_proto(message: worker_pb2.Plan, previous: Plan) -> Plan:
    """Return the plan of `message`, where `previous` is the plan received before it.

    `WireError`: the message says "unchanged" against another plan than `previous`.
    """
    if not message.unchanged:
        return Plan(message.seq, message.step, tuple(message.order), message.horizon)
    if message.seq != previous.seq:
        raise WireError(
            f"plan {message.seq} is said to be unchanged, but the plan held is {previous.seq}"
        )
    return Plan(previous.seq, message.step, previous.order, previous.horizon)
