"""docs/modes.md says of no mode what no test and no refusal shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from laps_sglang import modes
from laps_sglang.compat import UnsupportedEngineError
from laps_sglang.modes import REFUSED, refuse_unsupported

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "modes.md").read_text().splitlines()
    if line.startswith("|")
][2:]
WORKS = [(mode, re.findall("`(.+?)`", shown)) for mode, state, shown in ROWS if state == "works"]
REFUSALS = {shown.strip("`"): mode for mode, state, shown in ROWS if state == "refused"}
OF_THE_MODEL = ("is_hybrid_ssm", "is_hybrid_swa", "is_encoder_decoder")


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Every test that the page names a file of, as pytest knows it: with its parameters."""
    files = sorted({test.partition("::")[0] for _, tests in WORKS for test in tests})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "testbed" / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.engine
@pytest.mark.parametrize(("mode", "tests"), WORKS, ids=[mode for mode, _ in WORKS])
def test_what_works_is_shown_by_a_test(mode: str, tests: list[str], collected: set[str]) -> None:
    assert tests
    assert set(tests) <= collected


@pytest.mark.parametrize("setting", REFUSALS, ids=REFUSALS.values())
def test_what_is_refused_is_refused(setting: str) -> None:
    if setting in OF_THE_MODEL:
        assert f".{setting}, " in Path(modes.__file__).read_text()
    else:
        with pytest.raises(UnsupportedEngineError):
            refuse_unsupported({setting: 2}, None)


def test_every_mode_works_or_is_refused() -> None:
    assert len(WORKS) + len(REFUSALS) == len(ROWS)
    assert REFUSALS.keys() == {*REFUSED, *OF_THE_MODEL}
