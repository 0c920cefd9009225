"""The commands ``nerd-train``, ``nerd-export`` and ``nerd-eval``."""
