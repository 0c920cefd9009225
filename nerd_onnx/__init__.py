"""Add named entities to large text corpora on ordinary CPUs: the same text always gets the same entities."""

__version__ = "0.1.0"
