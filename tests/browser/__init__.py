"""Pages in a real browser, offline: what they look like, what they load, what a click does."""
