"""Rewrites of ONNX graphs that keep what the network computes."""
