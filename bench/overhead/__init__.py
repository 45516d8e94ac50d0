"""How long the engine takes to decide, and how much memory it needs, by number of requests."""
