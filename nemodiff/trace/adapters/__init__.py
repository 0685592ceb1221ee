"""What other engines did, as traces. None of these imports the engine that it is for; docs/trace-format.md shows them.

canvas: a loop that fills masks, in the manner of LLaDA and Dream. streamer: transformers' text-diffusion streamer.
assisted: transformers' assisted generation. log: lines of JSON, as anybody can write them around SGLang or vLLM.
trajectory: diffusers' sampling animation.
"""
