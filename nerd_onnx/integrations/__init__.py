"""The tagger in other libraries. Each module imports its library only when a function is called."""
