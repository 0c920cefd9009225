"""JSON Lines: read and write it, as raw lines or as typed rows."""
