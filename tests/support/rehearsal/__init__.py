"""Rehearsals: long runs of cuts, losses, kills and attacks with real processes; see `__main__`."""
