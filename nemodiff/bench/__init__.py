"""The tables of the benchmarks, a module a table."""
