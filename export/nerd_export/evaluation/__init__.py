"""``nerd-eval``: the scores of a bundle or a PyTorch checkpoint on labelled sentences."""
