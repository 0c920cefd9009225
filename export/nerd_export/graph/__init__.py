"""Rewrites of ONNX graphs that do not change what the network computes."""
