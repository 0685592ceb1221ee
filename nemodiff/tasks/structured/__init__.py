"""Structured tasks: instances by seed, each with its one right answer."""
