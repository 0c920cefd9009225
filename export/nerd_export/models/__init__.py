"""Checkpoints and networks: loaded by name, exported to ONNX, averaged, and restored from a bundle."""
