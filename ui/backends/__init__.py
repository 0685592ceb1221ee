"""Engines that are elsewhere."""
