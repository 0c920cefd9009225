"""Processes: a command with its time and memory, and one process per peer."""
