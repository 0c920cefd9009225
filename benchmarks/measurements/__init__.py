"""What is measured: one file per measurement."""
