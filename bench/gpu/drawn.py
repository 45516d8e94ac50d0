"""The file of a contest's requests: whoever replays a run needs those that were sent.

A line for each round and load, as all its policies got them; of two lines the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from gpu.load import Job
from gpu.workload import Drawn, Pool, draw

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


class Requests:
    """What the runs of a contest are sent, and a file of it.

    A round that had `begun` goes on with what it began with. Of others the file may have something,
    too, for loads or a pool of another time: they are drawn.
    """

    def __init__(self, path: Path, pool: Pool, begun: Collection[Key]) -> None:
        self._path = path
        self._pool = pool
        kept = read_drawn(path, pool)
        self._drawn = {key: kept[key] for key in begun if key in kept}

    def of(self, turn: int, load: str, seconds: float) -> Drawn:
        """Return what is sent in a round under a load."""
        key = (turn, load)
        if key not in self._drawn:
            self._drawn[key] = draw(self._pool, load, turn, seconds)
            keep_drawn(self._path, key, self._drawn[key])
        return self._drawn[key]
