"""From a checkpoint's name to its files."""
