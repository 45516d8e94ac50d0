"""The submodule that SGLang's NGRAM worker imports from."""

from __future__ import annotations

from .tree import reconstruct_indices_from_tree_mask

__all__ = ["reconstruct_indices_from_tree_mask"]
