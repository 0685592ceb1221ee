"""What other engines did, as traces. Each of these needs the standard library alone; docs/trace-format.md shows them.

canvas: a loop that fills masks, in the manner of LLaDA and Dream. streamer: transformers' text-diffusion streamer.
assisted: transformers' assisted generation. log: lines of JSON, as anybody can write them around SGLang or vLLM.
trajectory: diffusers' sampling animation.
"""
