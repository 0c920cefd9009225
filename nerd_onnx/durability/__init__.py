"""What survives a crash: the work folder, its lock, its journal and the results of chunks."""
