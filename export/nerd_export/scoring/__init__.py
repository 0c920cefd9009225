"""Scores of a tagger on labelled sentences, and how certain they are."""
