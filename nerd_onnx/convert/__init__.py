"""``nerd-convert``: tagged rows as the formats of other programs."""
