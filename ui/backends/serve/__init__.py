"""The engine behind Ray Serve: replicas with one model each, for pages that load none."""
