"""The engine behind Ray Serve: replicas with one model each (`python -m ui.serve`), for pages that load none."""
