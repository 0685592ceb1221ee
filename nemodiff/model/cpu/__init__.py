"""Inference on a CPU with kernels of our own."""
