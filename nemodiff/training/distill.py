"""Self-distilled text: the frozen base answers our open prompts greedily and goes on from neutral openings by sampling;
training on its own words keeps it as it is."""

import json
import time
from pathlib import Path

import torch

from nemodiff.training.neutral import NEUTRAL_OPENINGS
from nemodiff.training.prompts import open_prompts

NEUTRAL = "neutral"  # kind of a record whose prompt is plain text, outside the chat template


def repeated_share(ids: list[int], n: int = 4) -> float:
    """Share of the n-grams of `ids` that occurred before in it: 0 for text that never repeats, near 1 for a loop."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def keep_answer(ids: list[int], max_repeated: float = 0.25) -> bool:
    """True for an answer that is worth learning: at least four tokens, and not a loop."""
    return len(ids) >= 4 and repeated_share(ids) <= max_repeated


def read_answers(path: Path) -> list[dict]:
    """Records of a distilled file; a last line that is still being written is skipped."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records


@torch.inference_mode()
def answer_batch(
    model, tokenizer, prompts: list[str], max_new_tokens: int, *, neutral: bool = False
) -> list[list[int]]:
    """Answers to `prompts` as token ids, <|im_end|> included where the model ended within `max_new_tokens`: greedy ones
    in the chat template, or with `neutral` sampled continuations of the plain text (temperature 1, top-p 0.95)."""
    texts = prompts
    if not neutral:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in prompts
        ]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    how = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 0} if neutral else {"do_sample": False}
    output = model.generate(**encoded, **how, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.eos_token_id)
    answers = []
    for row in output[:, encoded["input_ids"].shape[1] :].tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        answers.append(row[:end])
    return answers


def distill(
    base: Path,
    out: Path,
    *,
    limit: int = 2000,
    batch: int = 128,
    max_new_tokens: int = 128,
    seed: int = 0,
    device: str = "cpu",
    neutral: int = 256,
) -> int:
    """Append the base's continuations of the first `neutral` openings and its answers to the first `limit` open prompts
    to the JSONL file `out`; prompts already there are skipped.

    A record is {"kind", "prompt", "answer_ids", "kept"}; answers that loop or repeat another one have "kept" false
    and stay in the file so that a resumed run does not generate them again. Returns how many records the file keeps.
    bf16; works on a GPU as well.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).to(device).eval()
    done = read_answers(out)
    prompts_done = {record["prompt"] for record in done}
    seen = {tuple(record["answer_ids"][:24]) for record in done}
    openings = [(NEUTRAL, opening) for opening in NEUTRAL_OPENINGS[:neutral]]
    groups = []
    for items in (openings, open_prompts(seed)[:limit]):
        waiting = [item for item in items if item[1] not in prompts_done]
        groups += [waiting[first : first + batch] for first in range(0, len(waiting), batch)]
    total, answered = sum(map(len, groups)), 0
    torch.manual_seed(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    started, tokens, kept = time.monotonic(), 0, sum(record["kept"] for record in done)
    with out.open("a", encoding="utf-8") as file:
        for group in groups:
            texts = [prompt for _, prompt in group]
            answers = answer_batch(model, tokenizer, texts, max_new_tokens, neutral=group[0][0] == NEUTRAL)
            answered += len(group)
            for (kind, prompt), ids in zip(group, answers, strict=True):
                opening = tuple(ids[:24])
                keep = keep_answer(ids) and opening not in seen
                seen.add(opening)
                kept += keep
                tokens += len(ids)
                record = {"kind": kind, "prompt": prompt, "answer_ids": ids, "kept": bool(keep)}
                file.write(json.dumps(record) + "\n")
            file.flush()
            seconds = time.monotonic() - started
            print(f"{answered}/{total} prompts, {kept} kept, {tokens / seconds:.0f} tokens/s", flush=True)
    return kept
