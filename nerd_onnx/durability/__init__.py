"""State of a run that survives a crash: the work folder with its lock, its journal and its stored results."""
