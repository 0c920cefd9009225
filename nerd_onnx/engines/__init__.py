"""Ray Data and Spark: the same tagging on the workers of an engine, rows through ``tag()``, files through nerd-tag."""
