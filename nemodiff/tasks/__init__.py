"""What models are asked: structured tasks, open prompts, questions about drawings."""
