"""The format JSON Lines, read and written as raw lines or as typed rows."""
