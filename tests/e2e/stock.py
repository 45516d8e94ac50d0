"""What stock SGLang answers: the truth that every other server is held to."""

from __future__ import annotations

from pathlib import Path

from e2e.load import Job, Output, ask_all, jobs
from e2e.servers import SMOLLM2, Variant, assert_clean, flush, internal_state, sglang, until

ROUND_TOKENS = 6
"""More than a round brings in any variant."""


def jobs_of(variant: Variant) -> list[Job]:
    """The jobs that a variant is tested with; fewer for the one real model, which is slow."""
    return jobs(count=8, longest=16) if variant is SMOLLM2 else jobs()


class Stock:
    """Outputs of servers without any of our flags, made once for each model.

    They decode plainly: speculation changes no greedy token in float32.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._outputs: dict[str, dict[str, Output]] = {}

    def outputs(self, variant: Variant) -> dict[str, Output]:
        """Outputs of the variant's jobs, by name of job."""
        if variant.model not in self._outputs:
            plain = Variant(f"stock-{variant.model}", variant.model)
            with sglang(plain, self._logs / f"{plain.name}.log") as server:
                assert until(lambda: flush(server))
                outputs = ask_all(server.base_url, jobs_of(variant))
                assert "laps" not in internal_state(server)
                assert_clean(server)
            for job in jobs_of(variant):
                output = outputs[job.name]
                ends_early = len(output.token_ids) + ROUND_TOKENS <= job.max_tokens
                assert output.finish_reason == "length" or ends_early, job
            self._outputs[variant.model] = outputs
        return self._outputs[variant.model]
