"""A trace becomes a chart, a GIF, a video, a replay: pure functions."""
