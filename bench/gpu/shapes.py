"""The forms of draft that are measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """SGLang's three numbers of a draft."""

    steps: int
    topk: int
    """Candidates a step."""
    tokens: int
    """Tokens sent to one verification."""

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            *("--speculative-num-steps", str(self.steps)),
            *("--speculative-eagle-topk", str(self.topk)),
            *("--speculative-num-draft-tokens", str(self.tokens)),
        )


SHAPES = {"tree": Shape(3, 4, 8), "chain": Shape(3, 1, 4)}
