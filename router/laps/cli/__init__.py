"""The `laps` command."""
