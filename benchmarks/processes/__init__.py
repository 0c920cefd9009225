"""Run commands with their time and memory, and one process per peer."""
