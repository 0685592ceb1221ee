"""Open prompts, which have no one right answer, and plain prose."""
