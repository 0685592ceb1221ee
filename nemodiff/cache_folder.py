"""Where files are kept that would cost time to make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Fetched and converted weights and compiled kernels: $NEMODIFF_CACHE, else ~/.cache/nemodiff."""
    return Path(os.environ.get("NEMODIFF_CACHE") or Path.home() / ".cache" / "nemodiff")
