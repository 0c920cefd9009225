"""``nerd-eval``: a bundle or a PyTorch checkpoint against labelled sentences."""
