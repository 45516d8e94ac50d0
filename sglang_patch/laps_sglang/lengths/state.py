"""What was learnt of lengths, and the file in which it is kept: arrays in an .npz, no pickle."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laps_sglang.lengths.features import COLUMNS

FORMAT = "sglang-laps lengths 1"
"""A file of another format is refused: features of another kind would make nonsense of it."""
_MOST = 1e6
"""Nothing that was learnt comes near to it; what is beyond would overflow in predictions."""
_LONGEST = math.log(2**31)


class LengthModelError(ValueError):
    """A model cannot be used; the message says why and what to do."""


@dataclass
class State:
    """A linear model of log output length, and how good it has been.

    Errors are |log(predicted / real)| of predictions made before the request was learnt from.
    """

    weights: NDArray[np.float64]
    """One for each column of the features."""
    intercept: float = 0.0
    learnt: int = 0
    """Finished requests that were learnt from."""
    longest: float = 0.0
    """Greatest log length that there was."""
    mean: float = 0.0
    """Mean log length of the newest."""
    error: float = 0.0
    """Mean error of the model."""
    error_of_mean: float = 0.0
    """Mean error of saying the mean each time."""


def new_state() -> State:
    """Return the state of a model that has seen nothing."""
    return State(np.zeros(COLUMNS))


def load(path: Path) -> State:
    """Read a state. Raises LengthModelError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # what breaks numpy depends on where a file is broken
        raise LengthModelError(
            f"{path} is no model of lengths: remove it, or name another file"
        ) from error
    wanted = {"format", *(field.name for field in fields(State))}
    if arrays.keys() != wanted or str(arrays.pop("format")) != FORMAT:
        raise LengthModelError(
            f"{path} is no model of lengths of this version: remove it, or name another file"
        )
    if not all(_fits(name, array) for name, array in arrays.items()):
        raise LengthModelError(f"{path} is damaged: remove it, or name another file")
    return State(
        weights=arrays.pop("weights").astype(np.float64),
        learnt=int(arrays.pop("learnt")),
        **{name: float(array) for name, array in arrays.items()},
    )


def _fits(name: str, array: NDArray[Any]) -> bool:
    """Return whether `array` can have been learnt as the field `name` of a State."""
    if array.shape != ((COLUMNS,) if name == "weights" else ()) or array.dtype.kind not in "iuf":
        return False
    least, most = {"learnt": (0.0, 2.0**63), "longest": (0.0, _LONGEST)}.get(name, (-_MOST, _MOST))
    return bool(((least <= array) & (array <= most)).all())


def save(state: State, path: Path) -> None:
    """Write `state`; whoever reads `path` meanwhile finds the old file or the new one, whole.

    Its owner alone may read it: weights tell something of the prompts. Raises OSError.
    """
    arrays: dict[str, Any] = vars(state) | {"weights": state.weights.astype(np.float32)}
    with NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        try:
            np.savez(file, format=FORMAT, **arrays)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def check(path: Path) -> None:
    """Refuse what cannot be used or kept. Raises LengthModelError."""
    if find_spec("sklearn") is None:
        raise LengthModelError(
            "learning lengths (--laps-length-model) needs scikit-learn: "
            "pip install 'sglang-laps[lengths]'"
        )
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise LengthModelError(
            f"what is learnt of lengths cannot be kept in {path.name}: {folder} is no folder that "
            "can be written to; make it first"
        )
    if path.exists():
        load(path)
