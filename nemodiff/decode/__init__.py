"""The three modes as generators of Events, and the race between them."""

from nemodiff.decode.autoregressive import autoregressive
from nemodiff.decode.diffusion import diffusion
from nemodiff.decode.lane import Guesses, LaneRun, Settings
from nemodiff.decode.prefill import Prefill, Seen, synchronise
from nemodiff.decode.quadratic import layouts as quadratic_layouts
from nemodiff.decode.race import race
from nemodiff.decode.self_speculation import self_speculation
from nemodiff.decode.shapes import shapes

DECODERS = {"ar": autoregressive, "diffusion": diffusion, "self-speculation": self_speculation}

__all__ = [
    "DECODERS",
    "Guesses",
    "LaneRun",
    "Prefill",
    "Seen",
    "Settings",
    "autoregressive",
    "diffusion",
    "quadratic_layouts",
    "race",
    "self_speculation",
    "shapes",
    "synchronise",
]
