"""The model shapes that are measured, and the model files that the peers need."""
