"""Texts to entities. Nothing in here knows files or Arrow."""
