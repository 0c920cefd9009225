"""Separate experiments: ``python -m benchmarks.scripts.NAME``."""
