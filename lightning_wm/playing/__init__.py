"""Playing episodes: what acts, the one loop that plays, what became of it."""
