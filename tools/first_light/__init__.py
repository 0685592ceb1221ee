"""`python -m tools.first_light`: everything that wants to be known of a GPU, in fifteen minutes with one.

Parts run in order, each guarded, so that a failure does not end the rest; what they found is written to $OUT (or --out)
as JSON and Markdown after every part. `--rehearse` does all of it on a CPU at toy size: nothing is captured there.
"""
