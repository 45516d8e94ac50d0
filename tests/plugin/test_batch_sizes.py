"""To which sizes SGLang pads a batch, by its own settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from laps_sglang.compat import captured_batch_sizes


def settings(backend: str, sizes: list[int] | None) -> dict[str, Any]:
    """As the newest SGLang resolves them."""
    return {"cuda_graph_config": {"decode": {"backend": backend, "bs": sizes}}}


def test_the_oldest_sglang_has_objects_in_their_place() -> None:
    config = SimpleNamespace(decode=SimpleNamespace(backend="full", bs=[1, 2, 4]))
    assert captured_batch_sizes({"cuda_graph_config": config}, 64) == (1, 2, 4)


@pytest.mark.parametrize(
    ("resident", "expected"), [(64, (1, 2, 4, 8, 16)), (16, (1, 2, 4, 8, 16)), (6, (1, 2, 4, 6))]
)
def test_sizes_above_the_number_of_slots_are_not_captured(
    resident: int, expected: tuple[int, ...]
) -> None:
    assert captured_batch_sizes(settings("full", [1, 2, 4, 8, 16]), resident) == expected


@pytest.mark.parametrize(
    "off", [{}, settings("disabled", [1, 2]), settings("full", None)], ids=["none", "off", "empty"]
)
def test_without_graphs_nothing_is_padded(off: dict[str, Any]) -> None:
    assert captured_batch_sizes(off, 64) == ()
