"""Load and faults, measured on loopback: python -m tools.load --visitors 50 --minutes 3. Prints a markdown table.

Starts the servers that it asks, on the CPU checkpoint. A visitor speaks the page's own protocol: it joins the queue,
takes the events of its run, checks that none is missing, and asks again; every fifth one closes its tab in the middle
of a run. `--faults` (default: all) names what is broken on purpose, one after the other.
"""
