"""docs/modes.md says of no mode what no test and no refusal shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from laps_sglang import modes
from laps_sglang.compat import UnsupportedEngineError
from laps_sglang.modes import refuse_unsupported, untested

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "modes.md").read_text().splitlines()
    if line.startswith("|")
][2:]
OF_THE_MODEL = ("is_hybrid_ssm", "is_hybrid_swa")


@pytest.mark.parametrize(("mode", "state", "shown"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_shown(mode: str, state: str, shown: str) -> None:
    name = shown.strip("`")
    if state == "works":
        path, _, test = name.partition("::")
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
    elif state == "warned":
        assert untested({name: "X"})
    else:
        assert state == "refused"
        if name in OF_THE_MODEL:
            assert f"scheduler.{name}" in Path(modes.__file__).read_text()
        else:
            with pytest.raises(UnsupportedEngineError):
                refuse_unsupported({name: 2}, None)


def test_every_refusal_and_warning_has_a_row() -> None:
    source = Path(modes.__file__).read_text()
    refused = set(re.findall(r'given\("(\w+)"\)', source)) - {"max_running_requests", "lora_paths"}
    named = {row[2].strip("`") for row in ROWS}
    assert refused | set(modes._UNTESTED) <= named
