"""How good, how fast, compared with what: ``python -m benchmarks``. Never shipped. README.md names every file."""
