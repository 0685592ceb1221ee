"""Drawings and questions about them."""
