"""Tokenizer: text ↔ ids through transformers, and the exact text or bytes of a single id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemodiff.errors import CheckpointError, RequestError


class Tokenizer:
    """A checkpoint's tokenizer and chat template; without files, ids stand for themselves."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self._hf = None
        if (folder / "tokenizer.json").is_file():
            from transformers import PreTrainedTokenizerFast

            try:
                self._hf = PreTrainedTokenizerFast.from_pretrained(folder)
            except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
                raise CheckpointError(
                    f"{folder.name}/tokenizer.json cannot be read; fetch the checkpoint again."
                ) from error
            self._special = set(self._hf.all_special_ids) | set(self._hf.added_tokens_decoder)
            self._bytes = _byte_alphabet()

    @property
    def available(self) -> bool:
        return self._hf is not None

    @property
    def special_ids(self) -> list[int]:
        return sorted(self._special) if self._hf is not None else []

    def find(self, token: str) -> int | None:
        """The id of a token that stands for itself, such as </think>; None when the vocabulary has none."""
        return None if self._hf is None else self._hf.get_vocab().get(token)

    def encode(self, prompt: str, raw: bool, images: Sequence[int] = ()) -> list[int]:
        """Ids of a user's prompt in the chat template, with the answer's turn opened; `raw` takes the text as it is.

        images: a token id a picture, which stand before the text.
        """
        if self._hf is None:
            raise RequestError("This checkpoint has no tokenizer: give token ids (--prompt-ids) instead of text.")
        template = "" if raw else self._hf.chat_template or ""
        content: str | list[dict] = "".join(self._hf.convert_ids_to_tokens(list(images))) + prompt
        if not template:
            return self._hf.encode(content)
        if images and any(f"{quote}image{quote}" in template for quote in "'\""):  # it places them by itself
            content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        try:
            return self._hf.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except Exception as error:  # a template is a program of its own and may fail in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise RequestError(
                f"{self.name}'s chat template fails ({reason}): ask for a raw prompt (--raw) or fetch it again."
            ) from error

    def decode(self, tokens: list[int]) -> str:
        """The answer's text, without special tokens."""
        if self._hf is None:
            return " ".join(map(str, tokens))
        return self._hf.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def token_text(self, token: int) -> str | bytes:
        """The exact text of one id; its bytes when they are no complete UTF-8."""
        if self._hf is None:
            return f"[{token}]"
        piece = self._hf.convert_ids_to_tokens(token)
        if piece is None:
            return f"[{token}]"
        if token in self._special:
            return piece
        try:
            raw = bytes(self._bytes[character] for character in piece)
        except KeyError:  # not a byte-level vocabulary
            return self._hf.decode([token])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character (GPT-2's table); this is the way back."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
