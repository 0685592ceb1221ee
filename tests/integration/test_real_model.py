"""The real weights: parity of the base with transformers, and the default checkpoint's promises."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemodiff.checkpoints.catalogue import base_weights
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.examples import EXAMPLES, SCRIPTS
from nemodiff.model.weights import load_model
from nemodiff.request import Request

TEXT = "Naïve café ☕ costs 1234 €.\n\tprint('héllo 👋')  # 日本語"


@pytest.fixture(scope="module")
def base():
    return base_weights()


def test_base_logits_and_greedy_tokens_equal_transformers(base):
    model = load_model(base, "cpu", torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    prompt = Tokenizer(base).encode("Name three colours and say why you like them.", raw=False)
    cache = model.new_cache(len(prompt) + 24)
    logits = model(torch.tensor(prompt), cache, causal=True)
    with torch.no_grad():
        torch.testing.assert_close(logits, reference(torch.tensor([prompt])).logits[0], rtol=1e-3, atol=1e-3)
        expected = reference.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, attention_mask=torch.ones(1, len(prompt)).long()
        )[0, len(prompt) :].tolist()
    cache.keep(len(prompt))
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < len(expected):
        tokens.append(int(model(torch.tensor(tokens[-1:]), cache, causal=True).argmax()))
        cache.keep(1)
    assert tokens == expected


def test_tokenizer_round_trip_and_chat_template(base):
    tokenizer, reference = Tokenizer(base), AutoTokenizer.from_pretrained(base)
    ids = tokenizer.encode(TEXT, raw=True)
    assert tokenizer.decode(ids) == TEXT
    pieces = [tokenizer.token_text(token) for token in ids]
    assert any(isinstance(piece, bytes) for piece in pieces)  # the emoji falls apart into bytes
    assert b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces).decode() == TEXT
    assert tokenizer.encode("1234", raw=True) == [33, 34, 35, 36]  # SmolLM splits digits
    chat = reference.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(tokenizer.encode("Hi", raw=False)) in chat.replace("<|im_start|>", "").replace(
        "<|im_end|>", ""
    )
    assert tokenizer.token_text(2) == "<|im_end|>"


@pytest.mark.parametrize("block_length", [2, 5, 8, 16, 33])
@pytest.mark.parametrize("example", [EXAMPLES[3], EXAMPLES[6]], ids=lambda e: e.label)
def test_self_speculation_is_ars_text_in_bf16(real_engine, example, block_length):
    request = Request(
        prompt=example.prompt,
        modes=("ar", "self-speculation"),
        max_new_tokens=48,
        block_length=block_length,
        alternatives=0,
    )
    ar, speculation = real_engine.generate(request).lanes
    assert speculation.tokens == ar.tokens


@pytest.mark.parametrize("example", SCRIPTS, ids=lambda example: example.label)
def test_other_scripts_are_copied_from_pieces_of_bytes_and_diffusion_alone_loses_some(real_engine, example):
    pieces = [real_engine.tokenizer.token_text(token) for token in real_engine.encode(Request(prompt=example.prompt))]
    assert any(isinstance(piece, bytes) for piece in pieces)
    ar, diffusion, speculation = real_engine.generate(Request(prompt=example.prompt, max_new_tokens=64)).lanes
    assert speculation.tokens == ar.tokens
    given = [word for value in json.loads(ar.text).values() for word in (value if isinstance(value, list) else [value])]
    assert all(str(word) in example.prompt for word in given) and len(given) >= 3
    assert (diffusion.tokens != ar.tokens) == (example.label == "Greek JSON")


def test_acceptance_over_the_example_prompts(real_engine):
    lengths = []
    for example in EXAMPLES:
        lane = real_engine.generate(
            Request(prompt=example.prompt, modes=("self-speculation",), max_new_tokens=96, alternatives=0)
        ).lanes[0]
        lengths.append(sum(lane.acceptance_lengths) / len(lane.acceptance_lengths))
    assert sum(not example.structured for example in EXAMPLES) >= 4
    assert sum(lengths) / len(lengths) >= 3.5


def test_the_command_line_answers_with_the_default_checkpoint():
    command = [
        sys.executable,
        "-m",
        "nemodiff",
        "generate",
        "--prompt",
        "Explain why the sky is blue.",
        "--mode",
        "all",
    ]
    result = subprocess.run([*command, "--json", "--max-new-tokens", "40"], capture_output=True, text=True, check=True)
    lanes = json.loads(result.stdout)["lanes"]
    assert set(lanes) == {"ar", "diffusion", "self-speculation"}
    assert lanes["self-speculation"]["tokens"] == lanes["ar"]["tokens"]
    assert all(lane["text"].strip() for lane in lanes.values())
