"""A run in the browser, and as folders that other programs read."""
