"""The encoder as one native function: C++ in ``src/``, compiled by :mod:`build`, loaded by :mod:`library`."""
