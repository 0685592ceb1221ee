"""A run, from asking to the messages of its events."""
