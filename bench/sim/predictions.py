"""What the client says about the output length, right or wrong: `Hints.predicted_tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim.lengths import distribution
from sim.workload import Ints


class Predictions(Protocol):
    """Draws predictions for true output lengths."""

    def draw(self, rng: np.random.Generator, output_tokens: Ints) -> Ints:
        """Return the predicted lengths in tokens, 0 for none."""


@dataclass(frozen=True)
class NoHint:
    """The client says nothing."""

    def draw(self, rng: np.random.Generator, output_tokens: Ints) -> Ints:
        return np.zeros_like(output_tokens)


@dataclass(frozen=True)
class Lognormal:
    """The true length times exp(sigma * normal(0, 1)), rounded, at least 1; sigma 0 is perfect."""

    sigma: float = 0.8

    def draw(self, rng: np.random.Generator, output_tokens: Ints) -> Ints:
        factor = np.exp(self.sigma * rng.standard_normal(len(output_tokens)))
        return np.maximum(np.rint(output_tokens * factor), 1).astype(np.int64)


@dataclass(frozen=True)
class Classes:
    """A real predictor's error: the mean length of the class that it puts the request in.

    A BERT classifier's, or that of a worker that learns lengths from prompts.

    The class is drawn from P(class | rank of the true length), measured; ranks are those within
    this workload, so that the error carries over to other lengths. The mean is over the requests
    of this workload in that class, as a calibrated predictor would say.
    """

    source: str = "ssjf-bert"

    def draw(self, rng: np.random.Generator, output_tokens: Ints) -> Ints:
        count = len(output_tokens)
        table = np.array(distribution(self.source)["class_given_rank"])
        order = np.lexsort((rng.random(count), output_tokens))
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count) * len(table) // count
        edges = np.cumsum(table, axis=1)[rank, :-1]
        kind = (rng.random(count)[:, None] > edges).sum(axis=1)
        sums = np.bincount(kind, weights=output_tokens, minlength=table.shape[1])
        means = sums / np.maximum(np.bincount(kind, minlength=table.shape[1]), 1)
        predicted: Ints = np.maximum(np.rint(means[kind]), 1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class Useless:
    """The length of another request, chosen by chance."""

    def draw(self, rng: np.random.Generator, output_tokens: Ints) -> Ints:
        return rng.permutation(output_tokens)
