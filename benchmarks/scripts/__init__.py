"""Experiments that are run by themselves: ``python -m benchmarks.scripts.NAME``."""
