"""``nerd-view``: tagged rows as one page to look at."""
