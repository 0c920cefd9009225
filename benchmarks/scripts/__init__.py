"""Programs as users of other libraries write them. Each stands alone: it loads what such a user loads, no more."""
