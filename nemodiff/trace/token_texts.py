"""The exact text or bytes of every id of a transformers tokenizer: pieces of characters join again without a loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def token_texts(tokenizer: Any) -> Callable[[int], str | bytes]:
    """id → its text, or its bytes when they are no complete UTF-8, of one of transformers' fast tokenizers."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    #: A vocabulary of SentencePiece: "▁" is a space, <0x0A> a byte.
    pieces = bool(getattr(tokenizer.backend_tokenizer.model, "byte_fallback", False))
    alphabet = byte_alphabet()

    def text(token: int) -> str | bytes:
        piece = tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return f"[{token}]"
        if token in special:
            return piece
        if pieces and not _BYTE.fullmatch(piece):
            return piece.replace("▁", " ")
        try:
            raw = bytes.fromhex(piece[3:5]) if pieces else bytes(alphabet[character] for character in piece)
        except KeyError:  # not a byte-level vocabulary
            return tokenizer.decode([token])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    return text


def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character (GPT-2's table); this is the way back."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
