"""Measure accuracy and speed beside other programs: ``python -m benchmarks``. Not part of the package."""
