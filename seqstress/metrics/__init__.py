"""How durations are counted: a mergeable histogram in integer microseconds."""
