"""Recipes that quantize the layers of a graph."""
