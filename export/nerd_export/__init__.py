"""Train, export, quantize and verify. What leaves this package for the runtime is a bundle folder."""
