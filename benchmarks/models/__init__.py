"""Model shapes, and the model files that their peers need."""
