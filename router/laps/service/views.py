"""From the engine's views to the contract's messages."""

from __future__ import annotations

from laps import wire
from laps.engine.views import Explanation, QueueView, RequestStatus
from laps.service.hub import Worker
from laps.v1 import client_pb2, common_pb2, operator_pb2

_MAX_UINT32 = 2**32 - 1


def _uint32(value: int) -> int:
    """Cut a count to its field: sums over what a broken worker reports may be larger."""
    return min(value, _MAX_UINT32)


def request_status(status: RequestStatus, worker_id: str) -> client_pb2.RequestStatus:
    return client_pb2.RequestStatus(
        rid=status.rid,
        worker_id=worker_id,
        phase=common_pb2.Phase.ValueType(status.phase),
        hints=wire.hints_to_proto(status.hints),
        prompt_tokens=status.prompt_tokens,
        output_tokens=_uint32(status.output_tokens),
        max_new_tokens=status.max_new_tokens,
        rounds=_uint32(status.rounds),
        accept_length=status.accept_length,
        accept_rate=status.accept_rate,
        perceived=status.perceived,
        predicted_tokens=_uint32(status.predicted_tokens),
        remaining_s=status.remaining_s,
        preemptions=status.preemptions,
        age_s=status.age_s,
    )


def queue(view: QueueView, worker_id: str) -> operator_pb2.Queue:
    return operator_pb2.Queue(
        worker_id=worker_id,
        name=view.name,
        running=view.running,
        paused=view.paused,
        waiting=view.waiting,
        rids=view.rids,
    )


def explanation(explained: Explanation, worker_id: str) -> operator_pb2.Explanation:
    return operator_pb2.Explanation(
        request=request_status(explained.status, worker_id),
        policy=explained.policy,
        queue=explained.queue,
        rank=explained.rank,
        key=[operator_pb2.KeyPart(name=part.name, value=part.value) for part in explained.key],
        reason=explained.reason,
    )


def worker_status(worker: Worker) -> operator_pb2.WorkerStatus:
    identity, engine, stats = worker.identity, worker.engine, worker.engine.stats()
    return operator_pb2.WorkerStatus(
        worker_id=identity.worker_id,
        incarnation=identity.incarnation,
        attached=worker.attached,
        model=identity.model,
        http_url=identity.http_url,
        sglang_version=identity.sglang_version,
        algorithm=identity.algorithm,
        max_running=engine.capacity.max_running,
        max_resident=engine.capacity.max_resident,
        running=stats.running,
        paused=stats.paused,
        waiting=stats.waiting,
        step=stats.step,
        round_s=stats.round_s,
        preemptions=stats.preemptions,
        finished=stats.finished,
        plans=stats.plans,
        policy=wire.policy_to_proto(engine.policy_spec),
        fresh_share=worker.link.freshness.share,
        estimates=stats.estimates.count,
        estimate_error=stats.estimates.mean_abs,
        estimate_bias=stats.estimates.mean,
    )
