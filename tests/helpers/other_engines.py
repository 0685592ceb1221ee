"""Other engines at work on tiny random weights, each recorded by its adapter: what docs/trace-format.md shows."""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from nemodiff.trace import Recorder, Trace, token_texts
from nemodiff.trace.adapters.assisted import record_assisted
from nemodiff.trace.adapters.canvas import Canvas
from nemodiff.trace.adapters.log import SCHEMA as LOG
from nemodiff.trace.adapters.streamer import TraceStreamer
from tests.helpers.checkpoints import random_llama
from tests.helpers.official import spread

PROMPT = [[3, 17, 60, 5]]
MASK = 100
GEMMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}


def word(token: int) -> str:
    return f" t{token}"


def masked_loop(length: int = 12, block_length: int = 4, texts: Any = word) -> tuple[Trace, list[int]]:
    """LLaDA's loop over a masked language model: of a block's masks the two surest proposals stay, forward by
    forward. Returns the trace and the answer that the loop wrote."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = spread(BertForMaskedLM(BertConfig(vocab_size=120, max_position_embeddings=64, **shape))).eval()
    recorder = Recorder.of_run("tiny-masked", "diffusion", texts, prompt="a made prompt", special=[MASK])
    canvas = Canvas(recorder, MASK, block_length)
    prompt = torch.tensor(PROMPT)
    x = torch.cat([prompt, torch.full((1, length), MASK)], 1)
    for start in range(prompt.shape[1], x.shape[1], block_length):
        while (open_ := x[0, start : start + block_length] == MASK).any():
            with torch.no_grad():
                logits = model(x).logits
            logits[..., MASK] = -torch.inf
            p, proposed = logits.softmax(-1).max(-1)
            sure = torch.where(open_, p[0, start : start + block_length], -1.0)
            for place in sure.topk(min(2, int(open_.sum()))).indices:
                x[0, start + place] = proposed[0, start + place]
            canvas.step(x[0, prompt.shape[1] :], proposed[0, prompt.shape[1] :], p[0, prompt.shape[1] :])
    return recorder.finish("length"), x[0, prompt.shape[1] :].tolist()


def text_diffusion(confidences: bool = True) -> tuple[Trace, list[int]]:
    """transformers' own text-diffusion model and generate, watched by the streamer: two canvases of 8."""
    torch.manual_seed(0)
    config = DiffusionGemmaConfig(text_config=GEMMA, vision_config=None, canvas_length=8)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    recorder = Recorder.of_run("tiny-diffusion-gemma", "diffusion", word, prompt="a made prompt")
    written = model.generate(
        torch.tensor(PROMPT),
        streamer=TraceStreamer(recorder, confidences=confidences),
        max_new_tokens=16,
        max_denoising_steps=5,
        eos_token_id=None,
        disable_compile=True,
    )
    tokens = getattr(written, "sequences", written)[0, len(PROMPT[0]) :].tolist()
    return recorder.finish(), tokens


def assisted(lookup: bool = False, tokenizer: PreTrainedTokenizerFast | None = None) -> tuple[Trace, list[int]]:
    """transformers' assisted generation, by a copy of the model with a little noise, or by prompt lookup."""
    model, assistant = random_llama(), _nearly(random_llama())
    texts = token_texts(tokenizer) if tokenizer else word
    recorder = Recorder.of_run("tiny-llama", "self-speculation", texts, prompt="a made prompt")
    draft: dict[str, Any] = {"prompt_lookup_num_tokens": 4} if lookup else {"assistant_model": assistant}
    prompt = torch.tensor([[3, 17, 60, 5, 3, 17, 60, 5]])
    with record_assisted(model, recorder, alternatives=3):
        written = model.generate(prompt, do_sample=False, max_new_tokens=24, eos_token_id=None, **draft)
    return recorder.finish(), written[0, prompt.shape[1] :].tolist()


def plain_decoding() -> tuple[Trace, list[int]]:
    """Any model's generate, a token per forward."""
    recorder = Recorder.of_run("tiny-llama", "ar", word, prompt="a made prompt")
    written = random_llama().generate(
        torch.tensor(PROMPT),
        streamer=TraceStreamer(recorder, "ar"),
        do_sample=False,
        max_new_tokens=9,
        eos_token_id=None,
    )
    return recorder.finish(), written[0, len(PROMPT[0]) :].tolist()


def logged(length: int = 20) -> tuple[str, list[int]]:
    """A log as somebody writes it around an engine that drafts: here a loop that looks drafts up in what it wrote, and
    a model that verifies them. Returns the log and the answer."""
    model = random_llama().eval()
    lines = [{"log": LOG, "model": "tiny-llama", "prompt": "a made prompt", "note": "Drafts what it wrote before."}]
    written = list(PROMPT[0])
    while len(written) < len(PROMPT[0]) + length:
        places = [i for i in range(len(written) - 1) if written[i] == written[-1]]
        draft = written[places[-1] + 1 :][:3] if places else []
        with torch.no_grad():
            best = model(torch.tensor([written + draft])).logits[0, len(written) - 1 :].argmax(-1).tolist()
        stand = 0
        while stand < len(draft) and draft[stand] == best[stand]:
            stand += 1
        new = best[: stand + 1]
        lines.append({"draft": draft, "tokens": [{"id": token, "text": word(token)} for token in new], "ms": 2.5})
        written += new
    lines[-1]["finish"] = "length"
    return "\n".join(map(json.dumps, lines)), written[len(PROMPT[0]) :]


def _nearly(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model with some noise: it drafts right sometimes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * weight.std() * torch.randn_like(weight)
    return model
