"""The base weights, brought to a machine without a network: in parts, and put together there; in a rehearsal, tiny."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from nemodiff.cache_folder import cache_folder
from nemodiff.checkpoints.base_weights import convert
from nemodiff.checkpoints.catalogue import base_weights, fetch_base_gguf
from tests.helpers.checkpoints import SHAPE, random_llama

#: Bytes of a part: with the working tree beside it less than 64 MiB travel at a time.
PART = 40 * 2**20
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|spare {i}|>" for i in range(3, 17))]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pack(folder: Path) -> list[Path]:
    """Fetch the base's GGUF file and lay it into `folder` in parts that can be carried."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        content = fetch_base_gguf(Path(scratch)).read_bytes()
    parts = []
    for number, start in enumerate(range(0, len(content), PART)):
        parts.append(folder / f"base.{number:02}")
        parts[-1].write_bytes(content[start : start + PART])
    (folder / "parts").write_text(str(len(parts)))
    return parts


def keep(carried: Path) -> str:
    """Move carried parts to where they last until the machine goes back; the last one makes the base of them."""
    kept = cache_folder() / "parts"
    kept.mkdir(parents=True, exist_ok=True)
    for part in carried.glob("base.*"):
        (kept / part.name).write_bytes(part.read_bytes())
    wanted, there = int((carried / "parts").read_text()), sorted(kept.glob("base.*"))
    if len(there) < wanted:
        return f"{len(there)} of {wanted} parts of the base weights are here."
    folder = cache_folder() / "smollm2-135m-instruct-v1"
    if not (folder / "model.safetensors").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / "base.gguf"
            whole.write_bytes(b"".join(part.read_bytes() for part in there))
            convert(whole, folder)
    return "The base weights are here."


def base(scratch: Path, tiny: bool) -> Path:
    """The base checkpoint's folder, or that of a tiny stand-in that can be trained on."""
    return _tiny_base(scratch / "tiny-base") if tiny else base_weights()


def _tiny_base(folder: Path) -> Path:
    """A random Llama with a byte per token, SmolLM2's chat template and a spare token at its mask's id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    torch_model = random_llama(vocab_size=len(vocabulary))
    tensors = {n: t.bfloat16().contiguous() for n, t in torch_model.state_dict().items() if n != "lm_head.weight"}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = SHAPE | {
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "rope_theta": 1e4,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
