"""`python -m laps.cli` is `laps`."""

from laps.cli.main import app

app(prog_name="laps")
