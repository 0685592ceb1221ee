"""Forwards of fixed shapes, for CUDA graphs."""
