"""Self-distilled text: the frozen base answers our open prompts greedily and goes on from neutral openings by sampling;
training on its own words keeps it as it is."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nemodiff.engine.devices import DTYPES, training_dtype
from nemodiff.errors import RequestError
from nemodiff.evaluate.agreement import repeated_share
from nemodiff.tasks.open_prompts.neutral import NEUTRAL_OPENINGS
from nemodiff.tasks.open_prompts.prompts import open_prompts
from nemodiff.training.batch_decode import BatchDecoder
from nemodiff.training.dual_stream import Backbone

NEUTRAL = "neutral"  # kind of a record whose prompt is plain text, outside the chat template
#: How many continuations an opening of plain text gets: they are sampled, so that each is another text.
DRAWS = 4
_FIELDS = {"kind", "prompt", "answer_ids", "kept"}


def keep_answer(ids: list[int], max_repeated: float = 0.25) -> bool:
    """True for an answer that is worth learning: at least four tokens, and not a loop."""
    return len(ids) >= 4 and repeated_share(ids) <= max_repeated


def read_answers(path: Path) -> list[dict]:
    """Records of a distilled file; a line that is half written is skipped. Raises RequestError for another file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as text: name what `distill` wrote.") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if not isinstance(record, dict) or not record.keys() >= _FIELDS or not record["answer_ids"]:
            raise RequestError(f"{path}, line {number}, is no record of `distill`: name what it wrote.")
        records.append(record)
    if lines and not records:
        raise RequestError(f"{path} holds no record of `distill`: name what it wrote.")
    return records


def distill(
    base: Path,
    out: Path,
    *,
    limit: int = 3500,
    slots: int = 128,
    max_new_tokens: int = 128,
    seed: int = 0,
    device: str = "cpu",
    neutral: int = 256,
) -> int:
    """Append the base's continuations of the first `neutral` openings, DRAWS of each, and its answers to the first
    `limit` open prompts to the JSONL file `out`; what is already there is not made again.

    Answers are greedy ones in the chat template, with <|im_end|> where the base ended within `max_new_tokens`;
    continuations are sampled from the plain text (temperature 1, top-p 0.95). A record is {"kind", "prompt",
    "answer_ids", "kept"}; answers that loop or repeat another one have "kept" false and stay in the file so that a
    resumed run does not generate them again. Returns how many records the file keeps.
    """
    from transformers import AutoTokenizer

    from nemodiff.model.weights import load_model

    tokenizer = AutoTokenizer.from_pretrained(base)
    backbone = Backbone.of(load_model(base, device, DTYPES[training_dtype(device)]))
    done = read_answers(out)
    made = Counter(record["prompt"] for record in done)
    seen = {tuple(record["answer_ids"][:24]) for record in done}
    openings = [(NEUTRAL, opening) for opening in NEUTRAL_OPENINGS[:neutral]] * DRAWS
    passes: list[tuple[list[tuple[str, str]], list[list[int]], dict[str, Any]]] = []
    # What is there already has used up its part of the noise.
    drawn: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "seed": seed + len(done)}
    for items, sampling in ((openings, drawn), (open_prompts(seed)[:limit], {})):
        waiting = not_made(items, made)
        encoded = [
            tokenizer.encode(prompt, add_special_tokens=False) if kind == NEUTRAL else chat_ids(tokenizer, prompt)
            for kind, prompt in waiting
        ]
        passes.append((waiting, encoded, sampling))
    room = max_new_tokens + max((len(ids) for _, encoded, _ in passes for ids in encoded), default=0)
    decoder = BatchDecoder(backbone, tokenizer.eos_token_id, slots=slots, room=room)
    total, answered = sum(len(waiting) for waiting, _, _ in passes), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    started, tokens, kept = time.monotonic(), 0, sum(record["kept"] for record in done)
    with out.open("a", encoding="utf-8") as file:
        for waiting, encoded, sampling in passes:
            for index, ids in decoder.run(encoded, max_new_tokens, **sampling):
                kind, prompt = waiting[index]
                opening = tuple(ids[:24])
                keep = keep_answer(ids) and opening not in seen
                seen.add(opening)
                kept += keep
                tokens += len(ids)
                answered += 1
                record = {"kind": kind, "prompt": prompt, "answer_ids": ids, "kept": bool(keep)}
                file.write(json.dumps(record) + "\n")
                if answered % 100 == 0 or answered == total:
                    file.flush()
                    speed = tokens / (time.monotonic() - started)
                    print(f"{answered}/{total} prompts, {kept} kept, {speed:.0f} tokens/s", flush=True)
    return kept


def not_made(items: list[tuple[str, str]], made: Counter[str]) -> list[tuple[str, str]]:
    """The (kind, prompt) of `items` without the first made[prompt] of each prompt."""
    left, waiting = made.copy(), []
    for item in items:
        if left[item[1]]:
            left[item[1]] -= 1
        else:
            waiting.append(item)
    return waiting


def chat_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Ids of the chat template around one user message, up to where the answer begins."""
    message = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)
