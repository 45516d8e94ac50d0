"""Between the client's values and the contract's messages; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from laps import wire
from laps.client._errors import InvalidRequestError
from laps.client._types import (
    Answer,
    Completed,
    Delta,
    Event,
    Explanation,
    KeyPart,
    Message,
    Queue,
    RequestStatus,
    Sampling,
    Started,
    WorkerStatus,
)
from laps.engine.types import Hints, PolicySpec
from laps.v1 import client_pb2, operator_pb2


def generate_request(
    prompt: str | Sequence[Message],
    sampling: Sampling | None,
    hints: Hints | None,
    rid: str,
    worker_id: str,
) -> client_pb2.GenerateRequest:
    """Raises InvalidRequestError for values that the contract cannot carry."""
    sampling = sampling or Sampling()
    try:
        request = client_pb2.GenerateRequest(
            rid=rid,
            sampling=client_pb2.SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop=sampling.stop,
                seed=sampling.seed,
            ),
            hints=wire.hints_to_proto(hints or Hints()),
            worker_id=worker_id,
        )
        if isinstance(prompt, str):
            request.prompt = prompt
        else:
            request.messages.extend(
                client_pb2.ChatMessage(role=message.role, content=message.content)
                for message in prompt
            )
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"the request cannot be sent: {error}") from None
    return request


def set_policy_request(spec: PolicySpec) -> operator_pb2.SetPolicyRequest:
    """Raises InvalidRequestError for values that the contract cannot carry."""
    try:
        return operator_pb2.SetPolicyRequest(policy=wire.policy_to_proto(spec))
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"the policy cannot be sent: {error}") from None


def event(message: client_pb2.GenerateEvent) -> Event:
    kind = message.WhichOneof("event")
    if kind == "started":
        return Started(message.started.rid, message.started.worker_id)
    if kind == "completed":
        completed = message.completed
        return Completed(
            completed.finish_reason, completed.prompt_tokens, completed.completion_tokens
        )
    # An event of a later contract carries no text that we know of.
    return Delta(message.delta.text)


def answer(events: Iterable[Event]) -> Answer:
    """Put the events of a generation together."""
    rid = worker_id = ""
    texts: list[str] = []
    completed = Completed("", 0, 0)
    for part in events:
        match part:
            case Started():
                rid, worker_id = part.rid, part.worker_id
            case Delta():
                texts.append(part.text)
            case Completed():
                completed = part
            case _:
                assert_never(part)
    return Answer(
        rid,
        worker_id,
        "".join(texts),
        completed.finish_reason,
        completed.prompt_tokens,
        completed.completion_tokens,
    )


def request_status(message: client_pb2.RequestStatus) -> RequestStatus:
    return RequestStatus(
        rid=message.rid,
        worker_id=message.worker_id,
        phase=wire.phase_from_proto(message.phase),
        hints=wire.hints_from_proto(message.hints),
        prompt_tokens=message.prompt_tokens,
        output_tokens=message.output_tokens,
        max_new_tokens=message.max_new_tokens,
        rounds=message.rounds,
        accept_length=message.accept_length,
        accept_rate=message.accept_rate,
        perceived=message.perceived,
        predicted_tokens=message.predicted_tokens,
        remaining_s=message.remaining_s,
        preemptions=message.preemptions,
        age_s=message.age_s,
    )


def worker_status(message: operator_pb2.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        worker_id=message.worker_id,
        incarnation=message.incarnation,
        attached=message.attached,
        model=message.model,
        http_url=message.http_url,
        sglang_version=message.sglang_version,
        algorithm=message.algorithm,
        max_running=message.max_running,
        max_resident=message.max_resident,
        running=message.running,
        paused=message.paused,
        waiting=message.waiting,
        step=message.step,
        round_s=message.round_s,
        preemptions=message.preemptions,
        finished=message.finished,
        plans=message.plans,
        policy=wire.policy_from_proto(message.policy),
        fresh_share=message.fresh_share,
        estimates=message.estimates,
        estimate_error=message.estimate_error,
        estimate_bias=message.estimate_bias,
    )


def queue(message: operator_pb2.Queue) -> Queue:
    return Queue(
        worker_id=message.worker_id,
        name=message.name,
        running=message.running,
        paused=message.paused,
        waiting=message.waiting,
        rids=tuple(message.rids),
    )


def explanation(message: operator_pb2.Explanation) -> Explanation:
    return Explanation(
        request=request_status(message.request),
        policy=message.policy,
        queue=message.queue,
        rank=message.rank,
        key=tuple(KeyPart(part.name, part.value) for part in message.key),
        reason=message.reason,
    )
