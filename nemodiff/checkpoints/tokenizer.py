"""Tokenizer: text ↔ ids through transformers, and the exact text or bytes of a single id."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nemodiff.conversation import Message
from nemodiff.errors import CheckpointError, RequestError, shown
from nemodiff.trace.token_texts import token_texts

#: How control tokens look: <|im_end|>, </s>, [INST]. Others that are added to vocabularies are spaces or words.
_MARKUP = re.compile(r"<.*>|\[.*\]", re.DOTALL)
#: Characters for private use, more than a prompt may have: one that it does not hold marks where it is cut.
_PRIVATE = range(0xF0000, 0x10FFFE)


class Tokenizer:
    """A checkpoint's tokenizer and chat template; without files, ids stand for themselves."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self._hf = None
        self._texts: Callable[[int], str | bytes] | None = None
        #: The token that ends an answer, as far as the tokenizer knows.
        self.eos_id: int | None = None
        if (folder / "tokenizer.json").is_file():
            from transformers import PreTrainedTokenizerFast

            try:
                self._hf = PreTrainedTokenizerFast.from_pretrained(folder)
                added = self._hf.added_tokens_decoder
                self._silent = set(self._hf.all_special_ids)
                self._special = self._silent | set(added)
                self.eos_id = self._hf.eos_token_id
                unknown = self._hf.unk_token_id
            except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
                raise CheckpointError(
                    f"{folder.name}/tokenizer.json cannot be read, or what is beside it; fetch the checkpoint again."
                ) from error
            #: Ids that a prompt's text never yields: they tell turns apart.
            self._control = {
                token for token, one in added.items() if one.special or _MARKUP.fullmatch(one.content)
            } | set(self._hf.all_special_ids)
            self._unknown = unknown
            self._template = _template(self._hf.chat_template, folder.name)
            # transformers warns of long prompts on its own; here a sentence tells of them.
            self._backend = self._hf.backend_tokenizer
            self._backend.no_truncation()
            self._backend.no_padding()
            self._texts = token_texts(self._hf)

    @property
    def available(self) -> bool:
        return self._hf is not None

    @property
    def special_ids(self) -> list[int]:
        return sorted(self._special) if self._hf is not None else []

    def find(self, token: str) -> int | None:
        """The id of a token that stands for itself, such as </think>; None when the vocabulary has none."""
        return None if self._hf is None else self._hf.get_vocab().get(token)

    def encode(
        self,
        prompt: str,
        raw: bool,
        images: Sequence[int] = (),
        mask: int | None = None,
        system: str = "",
        history: Sequence[Message] = (),
    ) -> list[int]:
        """Ids of a user's prompt in the chat template, with the answer's turn opened; `raw` takes the text as it is.

        images: a token id per picture: those that the history brought, then the prompt's, each before its message's
        text.
        system, history: what comes before the prompt in the template; there are none where `raw` is on. Control tokens
        that are written out in a text stay text, so that no text forges a turn; in a raw prompt they take effect, but
        for `mask`. Raises RequestError.
        """
        if self._hf is None:
            raise RequestError("This checkpoint has no tokenizer: give token ids (--prompt-ids) instead of text.")
        if (system or history) and not self._template:
            raise RequestError(
                f"{self.name} has no chat template, so it takes no {'earlier turns' if history else 'system prompt'}: "
                "write all of it into the prompt, or choose a checkpoint that chats."
            )
        never = {mask} if raw else {*self._control, mask}
        turns = [*([Message("system", system)] if system else []), *history]
        turns.append(Message("user", prompt, len(images) - sum(message.images for message in history)))
        used = set(self._template).union(*(message.content for message in turns))
        cut = next(character for character in map(chr, _PRIVATE) if character not in used)
        texts = [cut.join(self._spelt(message.content, never)) for message in turns]
        pictures = iter(images)
        own = [list(islice(pictures, message.images)) for message in turns]
        if raw or not self._template:
            return self._ids((self._places(own[-1]) + texts[-1]).split(cut), whole=True)
        messages = [
            {"role": message.role, "content": self._content(text, shown_first)}
            for message, text, shown_first in zip(turns, texts, own, strict=True)
        ]
        try:
            text = self._hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            if system and texts[0].strip() not in text:
                raise ValueError("it leaves out the system prompt")
            return self._ids(text.split(cut), whole=False)
        except Exception as error:  # a template is a program of its own and may fail in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            remedy = "leave the system prompt out" if system else "ask for a raw prompt (--raw)"
            raise RequestError(f"{self.name}'s chat template fails ({reason}): {remedy} or fetch it again.") from error

    def _content(self, text: str, images: list[int]) -> str | list[dict[str, str]]:
        """A message's content behind its pictures, as the template takes it."""
        if images and any(f"{quote}image{quote}" in self._template for quote in "'\""):  # it places them by itself
            return [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
        return self._places(images) + text

    def _places(self, images: list[int]) -> str:
        return "".join(self._hf.convert_ids_to_tokens(images)) if self._hf else ""

    def _spelt(self, text: str, never: Collection[int | None]) -> list[str]:
        """The text in parts whose ids hold none of `never`: each such token is cut behind its first character.

        Raises RequestError when one is a single character.
        """
        parts, whole = [text], False
        while not whole:
            whole, before, parts = True, parts, []
            for part in before:
                start = 0
                encoding = self._backend.encode(part, add_special_tokens=False)
                for token, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
                    if token not in never or (token == self._unknown and part[first:last] != self._piece(token)):
                        continue
                    if last - first < 2 and token not in self._control:
                        continue  # a vocabulary of characters, whose mask is one of them
                    if last - first < 2:
                        raise RequestError(
                            f"The prompt holds {shown(part[first:last])}, which is a control token here: take it out."
                        )
                    parts.append(part[start : first + 1])
                    start, whole = first + 1, False
                parts.append(part[start:])
        return parts

    def _ids(self, parts: list[str], whole: bool) -> list[int]:
        """Ids of a text in parts; whole: between the tokens that begin and end a text, where there are such."""
        if len(parts) == 1:
            return self._backend.encode(parts[0], add_special_tokens=whole).ids
        encodings = [self._backend.encode(part, add_special_tokens=False) for part in parts]
        merged = type(encodings[0]).merge(encodings)
        return (self._backend.post_process(merged) if whole else merged).ids

    def _piece(self, token: int) -> str | None:
        return self._backend.id_to_token(token)

    def decode(self, tokens: list[int]) -> str:
        """The answer's text, without special tokens."""
        if self._hf is None:
            return " ".join(map(str, tokens))
        return self._hf.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def written(self, token: int) -> bytes:
        """What one id adds to an answer's text, in UTF-8: nothing where `decode` leaves it out."""
        if self._hf is None:
            return b""
        text = self.token_text(token)
        if token in self._silent:
            return b""
        return text.encode() if isinstance(text, str) else text

    def token_text(self, token: int) -> str | bytes:
        """The exact text of one id; its bytes when they are no complete UTF-8."""
        return f"[{token}]" if self._texts is None else self._texts(token)


def _template(template: Any, name: str) -> str:
    """The chat template that is used, "" where there is none. Raises CheckpointError."""
    if isinstance(template, dict):  # several, by name
        template = template.get("default", template)
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{name}'s chat template cannot be read: it is no text. Fetch the checkpoint again.")
    return template or ""
