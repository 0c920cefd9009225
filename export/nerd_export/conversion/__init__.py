"""A checkpoint in, a verified bundle out: export, rewrite, verify, write."""
