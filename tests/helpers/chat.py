"""A tiny Llama that chats: a byte per token, with control tokens and a chat template as SmolLM2 has them."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from nemodiff.trace.token_texts import byte_alphabet
from tests.helpers.checkpoints import random_llama, write_llama

#: Ids of the control tokens; bytes follow them.
END_OF_TEXT, START, END, MASK_TOKEN, THINK, END_THINK = range(6)
SPELT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>", "<think>", "</think>"]
FIRST_BYTE = len(SPELT)
VOCABULARY = FIRST_BYTE + 256
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}<|im_start|>assistant\n"
)


def byte_id(byte: int) -> int:
    return FIRST_BYTE + byte


def write_tokenizer(folder: Path, template: str | None = TEMPLATE, **settings) -> Path:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    alphabet = {byte: character for character, byte in byte_alphabet().items()}
    vocabulary = {name: token for token, name in enumerate(SPELT)}
    vocabulary |= {alphabet[byte]: FIRST_BYTE + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    # As released: what brackets thinking is added, yet not special.
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPELT[:4]])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in SPELT[4:]])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def write_templated(folder: Path, template: str | None = TEMPLATE, **config) -> Path:
    """A whole checkpoint folder around that tokenizer. config: of config.json."""
    model = random_llama(vocab_size=VOCABULARY)
    settings = {"vocab_size": VOCABULARY, "mask_token_id": MASK_TOKEN, "eos_token_id": END}
    return write_tokenizer(write_llama(model, folder, **settings | config), template)
