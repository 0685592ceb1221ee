"""Around the page: how it is served, guarded and logged."""
