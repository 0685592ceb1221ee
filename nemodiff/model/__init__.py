"""One lean decoder-only transformer for every checkpoint, its KV cache and its weights."""
