"""``nerd-convert``: write tagged rows in the formats of other programs."""
