"""Checkpoints and networks: found by name, exported to ONNX, averaged, and restored from a bundle."""
