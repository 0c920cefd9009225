"""Labelled sentences: read, checked, and written as users write."""
