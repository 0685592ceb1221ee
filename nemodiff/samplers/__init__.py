"""Which masked positions a denoising forward commits."""

from nemodiff.samplers.rules import Proposal, Sampler, confidence, entropy, fixed, trained

__all__ = ["Proposal", "Sampler", "confidence", "entropy", "fixed", "trained"]
