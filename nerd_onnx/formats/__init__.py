"""File formats to record batches and back. Knows no models."""
