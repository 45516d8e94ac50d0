"""`laps.wire`: what goes over the wire comes back the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps import wire
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

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
seconds = st.floats(allow_nan=False)
# Protobuf strings are UTF-8: no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]))
handles = st.lists(u32, max_size=20).map(tuple)

hints = st.builds(Hints, text, st.integers(-(2**31), 2**31 - 1), u32, seconds)
progress = st.builds(Progress, u32, u32, u64, u64, u64)
arrivals = st.builds(Arrival, u32, text, seconds, u32, u32, hints, st.sampled_from(Phase), progress)
arrival_lists = st.lists(arrivals, max_size=5).map(tuple)
capacities = st.builds(Capacity, u32, u32, u64, handles)
reports = st.builds(
    StepReport,
    u64,
    seconds,
    arrival_lists,
    handles,
    handles,
    handles,
    u32,
    seconds,
    handles,
    handles,
    handles,
    u64,
)
snapshots = st.builds(Snapshot, u64, seconds, capacities, arrival_lists)
identities = st.builds(wire.WorkerIdentity, text, u64, text, text, text, text, u32)
plans = st.builds(Plan, u64, u64, handles, u32)
scalars = (
    st.one_of(
        st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False), text
    )
    | st.booleans()
)
policies = st.builds(PolicySpec, text, st.dictionaries(text, scalars, max_size=5))


@given(hints)
def test_hints_return(value: Hints) -> None:
    sent = wire.hints_to_proto(value).SerializeToString()
    assert wire.hints_from_proto(common_pb2.Hints.FromString(sent)) == value


@given(arrivals)
def test_an_arrival_returns(value: Arrival) -> None:
    sent = wire.arrival_to_proto(value).SerializeToString()
    assert wire.arrival_from_proto(worker_pb2.Request.FromString(sent)) == value


@given(reports)
def test_a_report_returns(value: StepReport) -> None:
    sent = wire.report_to_proto(value).SerializeToString()
    assert wire.report_from_proto(worker_pb2.StepReport.FromString(sent)) == value


@given(identities, snapshots)
def test_a_hello_returns(identity: wire.WorkerIdentity, snapshot: Snapshot) -> None:
    sent = wire.hello_to_proto(identity, snapshot).SerializeToString()
    hello = worker_pb2.Hello.FromString(sent)
    assert hello.protocol == wire.PROTOCOL
    assert wire.identity_from_proto(hello) == identity
    assert wire.snapshot_from_proto(hello) == snapshot


@given(plans)
def test_a_plan_returns(value: Plan) -> None:
    sent = wire.plan_to_proto(value).SerializeToString()
    assert wire.plan_from_proto(worker_pb2.Plan.FromString(sent), Plan()) == value


@given(plans, u64)
def test_an_unchanged_plan_takes_the_order_held(held: Plan, step: int) -> None:
    message = wire.plan_to_proto(Plan(held.seq, step, held.order, held.horizon), unchanged=True)
    assert not message.order
    assert wire.plan_from_proto(message, held) == Plan(held.seq, step, held.order, held.horizon)


def test_an_unchanged_plan_against_another_plan_is_refused() -> None:
    message = wire.plan_to_proto(Plan(seq=7), unchanged=True)
    with pytest.raises(wire.WireError, match="the plan held is 5"):
        wire.plan_from_proto(message, Plan(seq=5))


@given(policies)
def test_a_policy_returns_with_the_types_of_its_parameters(value: PolicySpec) -> None:
    sent = wire.policy_to_proto(value).SerializeToString()
    back = wire.policy_from_proto(common_pb2.PolicySpec.FromString(sent))
    assert back == value
    assert {k: type(v) for k, v in back.parameters.items()} == {
        k: type(v) for k, v in value.parameters.items()
    }


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('"a"', "must be a JSON object"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": null}', "'a' must be a number"),
        ('{"a": [1]}', "'a' must be a number"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(parameters: str, complaint: str) -> None:
    with pytest.raises(wire.WireError, match=complaint):
        wire.policy_from_proto(common_pb2.PolicySpec(name="fcfs", parameters_json=parameters))


def test_parameters_that_json_cannot_carry_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        wire.policy_to_proto(PolicySpec("laps-sd", {"bound_s": math.inf}))


def test_a_request_without_a_phase_waits() -> None:
    assert wire.arrival_from_proto(worker_pb2.Request(handle=1)).phase is Phase.WAITING


def test_a_phase_of_a_later_contract_is_refused() -> None:
    request = worker_pb2.Request()
    request.MergeFromString(b"\x38\x63")  # field 7 (phase) = 99
    with pytest.raises(wire.WireError, match="unknown phase 99"):
        wire.arrival_from_proto(request)
