"""How long drafts are accepted while training goes on: real self-speculation on held-out prompts, with the weights of
the moment."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.local import Defaults, Engine
from nemodiff.model.transformer import Transformer
from nemodiff.request import Request
from nemodiff.tasks.open_prompts.prompts import HELD_OUT_PROMPTS
from nemodiff.tasks.structured.families import TRAINED_FAMILIES, instance
from nemodiff.training.lora import LINEARS, Lora

BLOCK_LENGTH = 8
GROUPS = ("structured", "open")


def watched_prompts(structured: int = 10, open_: int = 6) -> list[tuple[str, str]]:
    """(group, prompt) of held-out instances, spread over the trained families, and of held-out open prompts."""
    stride = max(1, len(TRAINED_FAMILIES) // structured)
    names = TRAINED_FAMILIES[::stride][:structured]
    made = [(GROUPS[0], instance(name, "watch", held_out=True)[0]) for name in names]
    return made + [(GROUPS[1], prompt) for prompt in HELD_OUT_PROMPTS[:open_]]


def tuned_model(model: Transformer, lora: Lora, mask_token_id: int) -> Transformer:
    """A model over the merged weights themselves (no copy): it changes with every `lora.merge()`."""
    config = dataclasses.replace(model.config, mask_token_id=mask_token_id, shift_logits=True, block_size=BLOCK_LENGTH)
    tuned = Transformer(config, "meta")
    tuned.embed, tuned.norm, tuned.rows = model.embed, model.norm, model.rows
    tuned.head = tuned.embed if config.tie_word_embeddings else model.head
    for layer, base, merged in zip(tuned.layers, model.layers, lora.merged, strict=True):
        for name in LINEARS:
            getattr(layer, name).weight = nn.Parameter(merged[name], requires_grad=False)
        layer.input_norm, layer.post_norm = base.input_norm, base.post_norm
    return tuned


class Watch:
    """Measures acceptance lengths of the model in training."""

    def __init__(self, base: Path, model: Transformer, lora: Lora, mask_token_id: int) -> None:
        self._lora, self._model = lora, tuned_model(model, lora, mask_token_id)
        self._engine = Engine("training", self._model, Tokenizer(base), Defaults(BLOCK_LENGTH))

    def measure(self, prompts: list[tuple[str, str]], max_new_tokens: int = 64) -> torch.Tensor:
        """Sums over the prompts, to be added over workers: [new tokens, cycles] a group of GROUPS, fp32 [groups, 2]."""
        self._model.mask_embedding = self._lora.mask_embedding.detach().to(self._model.dtype)
        sums = torch.zeros(len(GROUPS), 2)
        for group, prompt in prompts:
            request = Request(prompt=prompt, modes=("self-speculation",), max_new_tokens=max_new_tokens, alternatives=0)
            lengths = self._engine.generate(request).lanes[0].acceptance_lengths
            sums[GROUPS.index(group)] += torch.tensor([float(sum(lengths)), float(len(lengths))])
        return sums
