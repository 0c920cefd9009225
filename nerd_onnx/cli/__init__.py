"""The commands ``nerd-tag``, ``nerd-view`` and ``nerd-convert``. Only modules in here print and exit."""
