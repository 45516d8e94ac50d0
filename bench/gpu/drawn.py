"""The file of a contest's requests: whoever replays a run needs those that were sent.

A line for each round and load, as all its policies got them; of two lines the last one counts.
"""

from __future__ import annotations

import json
from pathlib import Path

from gpu.load import Job
from gpu.workload import Drawn, Pool

Key = tuple[int, str]
"""Round and load."""


def requests_path(folder: Path, stage: str) -> Path:
    """Return where the requests of a contest are kept."""
    return folder / f"{stage}-requests.jsonl"


def read_drawn(path: Path, pool: Pool) -> dict[Key, Drawn]:
    """Return what is kept, by round and load; nothing if there is no file. Lengths are `pool`'s."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (line["round"], line["load"]): Drawn(
            [
                Job(number, prompt, due_s, pool.output_tokens[prompt], predicted_tokens)
                for number, (prompt, due_s, predicted_tokens) in enumerate(
                    zip(line["prompt"], line["due_s"], line["predicted_tokens"], strict=True)
                )
            ],
            line["backlog"],
        )
        for line in lines
    }


def keep_drawn(path: Path, key: Key, drawn: Drawn) -> None:
    """Add what was drawn for a round and load."""
    turn, load = key
    line = {
        "round": turn,
        "load": load,
        "backlog": drawn.backlog,
        "prompt": [job.prompt for job in drawn.jobs],
        "due_s": [job.due_s for job in drawn.jobs],
        "predicted_tokens": [job.predicted_tokens for job in drawn.jobs],
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
