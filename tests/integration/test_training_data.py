"""Prompts, structured families and noisy copies: deterministic, parseable, held out where they should be."""

import ast
import configparser
import csv
import io
import json
import random
import re
import sqlite3
from collections import Counter
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest

from nemodiff.tasks.open_prompts.neutral import NEUTRAL_OPENINGS, NEUTRAL_TEXTS
from nemodiff.tasks.open_prompts.prompts import HELD_OUT_PROMPTS, near_held_out, open_prompts
from nemodiff.tasks.structured.conversions import CONVERSIONS, PAIRS
from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.families import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    HELD_OUT_FAR_FAMILIES,
    MODULES,
    TRAINED_FAMILIES,
    instance,
    is_exact,
    is_held_out,
)
from nemodiff.training.data import Sequence, common_prefix
from nemodiff.training.distill import keep_answer, not_made, read_answers, repeated_share
from nemodiff.training.noisy_copies import BLOCK_SIZES, DECAY, MAX_PADS, PAD_WEIGHT, noisy_copy

SEEDS = range(25)


def answers(name: str) -> list[tuple[str, str]]:
    return [instance(name, seed) for seed in SEEDS]


def test_open_prompts_are_many_distinct_and_not_held_out():
    prompts = [prompt for _, prompt in open_prompts()]
    assert len(prompts) == len(set(prompts)) >= 6000
    assert len(set(HELD_OUT_PROMPTS)) == 60 and "Explain why the sky is blue." in HELD_OUT_PROMPTS
    assert open_prompts() == open_prompts(0) != open_prompts(1)
    assert sorted(open_prompts(0)) == sorted(open_prompts(1))
    assert len({kind for kind, _ in open_prompts()[:500]}) >= 30


def test_a_resumed_distillation_makes_what_is_missing():
    """An opening of plain text has several continuations, a prompt one answer; each is counted once."""
    items = [("neutral", "a"), ("neutral", "b")] * 2
    assert not_made(items, Counter(a=1)) == [("neutral", "b"), ("neutral", "a"), ("neutral", "b")]
    assert not_made(items, Counter(a=2, b=3)) == [] and not_made(items, Counter()) == items


def test_nearly_equal_prompts_are_not_drawn():
    assert near_held_out("explain why the sky is blue") and near_held_out("Explain to me why the sky is blue.")
    assert not near_held_out("Explain why the sea is salty and green.")
    assert not any(near_held_out(prompt) for _, prompt in open_prompts())


def test_neutral_text_is_varied_and_of_one_size():
    assert len(set(NEUTRAL_OPENINGS)) == len(NEUTRAL_OPENINGS) >= 200
    assert {len(opening.split()) for opening in NEUTRAL_OPENINGS} <= set(range(3, 9))
    assert len(set(NEUTRAL_TEXTS)) == 24 and all(80 <= len(text.split()) <= 120 for text in NEUTRAL_TEXTS)


def test_loops_are_filtered_out():
    assert repeated_share([1, 2, 3, 4, 5, 6]) == 0.0
    assert repeated_share([1, 2] * 20) > 0.9
    assert keep_answer(list(range(40))) and not keep_answer([1, 2] * 20) and not keep_answer([1, 2])


def test_read_answers_skips_a_line_cut_off(tmp_path):
    file = tmp_path / "chat.jsonl"
    file.write_text(
        '{"kind": "explain", "prompt": "a", "answer_ids": [1], "kept": true}\n{"prompt": "b", "ans', encoding="utf-8"
    )
    assert [record["prompt"] for record in read_answers(file)] == ["a"]
    assert read_answers(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("name", FAMILIES)
def test_family_is_deterministic_and_clean(name):
    first, again = answers(name), answers(name)
    assert first == again
    assert len({prompt for prompt, _ in first}) > len(SEEDS) * 0.6
    for prompt, answer in first:
        assert prompt == prompt.strip() and answer == answer.strip() and answer
        assert not is_held_out(prompt) and is_held_out(instance(name, 0, held_out=True)[0])


def test_families_are_many_and_some_are_held_out():
    assert len(TRAINED_FAMILIES) >= 130
    names = [name for module in MODULES for name in vars(module) if name in FAMILIES] + list(CONVERSIONS)
    assert len(names) == len(set(names)) == len(FAMILIES)  # no family hides another
    held_out = {*HELD_OUT_FAMILIES, *HELD_OUT_FAR_FAMILIES}
    assert len(held_out) == 6 and held_out <= set(FAMILIES) and not held_out & set(TRAINED_FAMILIES)
    # The held-out pairs are trained in no direction that would give them away.
    assert "html" not in PAIRS["csv"] and not {"ini", "env", "settings"} & set(PAIRS["told"].split())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_phrasing_is_never_trained(name, monkeypatch):
    drawn = []

    def phrase(rng, options):
        chosen = original(rng, options)
        drawn.append((chosen == options[-1], len(set(options))))
        return chosen

    original = Draw.phrase
    monkeypatch.setattr(Draw, "phrase", phrase)
    for seed in SEEDS:
        instance(name, seed)
        assert drawn and all(not last and count >= 3 for last, count in drawn)
        drawn.clear()
        instance(name, seed, new_phrasing=True)
        assert drawn and all(last for last, _ in drawn)
        drawn.clear()


def test_an_answer_is_exact_up_to_white_space_at_its_end():
    assert is_exact("a\n b\n", "a\n b") and not is_exact(" a", "a") and not is_exact("a  b", "a b")


def csv_rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def table_rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.split("\n")]


def cells_of(name: str, answer: str) -> set[str]:
    """The cells that a conversion's answer holds, read by the format's own parser where Python has one."""
    target = name.rpartition("_to_")[2]
    if target in ("json", "json_record"):
        parsed = json.loads(answer)
        rows = parsed if isinstance(parsed, list) else [parsed]
        return {json.dumps(cell).strip('"') for row in rows for cell in row.values()}
    if target in ("html", "definitions", "xml", "xml_record"):
        root = ElementTree.fromstring(f"<root>{answer}</root>")
        return {element.text for element in root.iter() if not len(element) and element.tag not in ("th", "dt")}
    if target == "sql":
        database = sqlite3.connect(":memory:")
        table, columns = re.match(r"INSERT INTO (\w+) (\(.*?\)) VALUES", answer).groups()
        database.execute(f"CREATE TABLE {table} {columns}")
        database.executescript(answer)
        return {str(cell) for row in database.execute(f"SELECT * FROM {table}") for cell in row}
    if target == "toml":
        return {line.split(" = ")[1].strip('"') for line in answer.split("\n")[1:]}
    if target == "ini":
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(answer)
        return set(parser[parser.sections()[0]].values())
    if target == "query":
        return {cell for _, cell in parse_qsl(answer)}
    if target == "csv":
        return {cell for row in csv_rows(answer)[1:] for cell in row}
    if target == "semicolons":
        return {cell for row in answer.split("\n")[1:] for cell in row.split(";")}
    if target == "markdown":
        return {cell for row in table_rows(answer)[2:] for cell in row}
    if target == "env":
        return set(re.findall(r'"(.*)"', answer))
    if target == "settings":
        return {line.split(" = ")[1] for line in answer.split("\n")}
    if target == "row_bullets":
        return {field.split(": ")[1] for line in answer.split("\n") for field in line[2:].split(", ")}
    return {line.split(": ", 1)[1] for line in answer.split("\n")}  # YAML and bullets with bold names


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_keep_every_cell(name):
    for prompt, answer in answers(name):
        given = parse_qsl(prompt.replace("\n", "&")) if name.startswith("query") else prompt.lower()
        given = " ".join(cell for _, cell in given).lower() if name.startswith("query") else given
        for cell in cells_of(name, answer):
            assert cell.lower() in given or cell in ("0", "1")  # SQL booleans


@pytest.mark.parametrize("name", ["json_array", "json_object", "json_indented", "csv_to_json"])
def test_json_answers_parse(name):
    for prompt, answer in answers(name):
        parsed = json.loads(answer)
        cells = (
            parsed
            if name == "json_array"
            else [v for row in (parsed if name == "csv_to_json" else [parsed]) for v in row.values()]
        )
        for cell in cells:
            if isinstance(cell, str):
                assert cell in prompt


@pytest.mark.parametrize(
    "name",
    [
        "dataclass",
        "python_class",
        "python_dict",
        "python_list",
        "argparse_options",
        "getters",
        "enum_class",
        "print_lines",
        "print_numbers",
        "function_calls",
        "assert_lines",
        "python_signature",
    ],
)
def test_python_answers_parse(name):
    for _, answer in answers(name):
        code = re.fullmatch(r"```python\n(.*)\n```", answer, re.S)
        assert code and ast.parse(code[1]).body


def test_tables_have_their_cells():
    for name in ("markdown_table", "json_to_csv"):
        for prompt, answer in answers(name):
            rows = table_rows(answer) if name == "markdown_table" else csv_rows(answer)
            assert len({len(row) for row in rows}) == 1
            assert all(cell in prompt or cell == "---" or cell in ("true", "false") for row in rows for cell in row)


@pytest.mark.parametrize("name", ["drop_column", "swap_columns", "select_rows"])
def test_edited_tables_are_still_tables(name):
    for prompt, answer in answers(name):
        rows = csv_rows(answer)
        assert len({len(row) for row in rows}) == 1 and all(cell in prompt for row in rows for cell in row)


@pytest.mark.parametrize(
    "name", ["add_field", "change_field", "keep_fields", "remove_field", "rename_key", "nested_json", "zip_lists"]
)
def test_edited_objects_are_json(name):
    for _, answer in answers(name):
        assert json.loads(answer) if answer.startswith("{") else name == "zip_lists"


def test_sequences_and_copies_are_right():
    for prompt, answer in answers("counting"):
        numbers = [int(number) for number in re.findall(r"\d+", answer)]
        steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}
        assert len(steps) == 1 and str(numbers[0]) in prompt and str(numbers[-1]) in prompt
    for prompt, answer in answers("copy_text"):
        assert answer in prompt
    for prompt, answer in answers("sort_words"):
        items = answer.split(", ")
        if all(item.isdigit() for item in items):
            assert items == sorted(items, key=int, reverse="largest to" in prompt)
        else:
            assert items == sorted(items, key=str.lower)
    for _, answer in answers("times_table"):
        for line in answer.split("\n"):
            left, right = line.replace("x", "*").split("=")
            assert eval(left) == int(right)  # noqa: S307 (our own arithmetic)


ANSWER = list(range(100, 123)) + [2]


@pytest.mark.parametrize("seed", range(30))
def test_noisy_copy(seed):
    """Blocks begin with a clean token or are masks alone, cover the answer in order, and predict exactly what is hidden
    behind their first position (labels shifted by one)."""
    noisy = noisy_copy(ANSWER, True, 2, 16, random.Random(seed))
    assert noisy.index == list(range(len(noisy.index)))
    padded = ANSWER + [2] * MAX_PADS
    assert len(ANSWER) - 1 <= len(noisy.index) <= len(padded)
    starts = sorted(set(noisy.start))
    sizes = [noisy.start.count(start) for start in starts]
    assert max(sizes) <= max(BLOCK_SIZES)
    groups = {start for start in starts if noisy.masked[start]}
    for i, start in enumerate(noisy.start):
        if start in groups:
            assert noisy.masked[i] and noisy.distance[i] == i - start + 2
        assert noisy.tokens[i] == (16 if noisy.masked[i] else padded[i])
        last = i + 1 == len(noisy.start) or noisy.start[i + 1] != start
        if not last:
            assert (noisy.target[i] == i + 1) == noisy.masked[i + 1]
        if noisy.target[i] >= 0:
            assert noisy.label[i] == padded[i + 1]
            assert noisy.weight[i] == (PAD_WEIGHT if i + 1 >= len(ANSWER) else DECAY ** (noisy.distance[i] - 1))
        else:
            assert noisy.weight[i] == 0.0


def test_every_way_of_decoding_is_drawn():
    """Drafts, groups of masks, prefixes from the left and commits anywhere: all are trained on, drafts most."""
    seen = Counter()
    for seed in range(400):
        noisy = noisy_copy(ANSWER, True, 2, 16, random.Random(seed), block=8)
        for start in set(noisy.start):
            masked = [hidden for hidden, own in zip(noisy.masked, noisy.start, strict=True) if own == start]
            if len(masked) == 8:
                ordered = masked == sorted(masked)
                kind = "group" if masked[0] else "draft" if all(masked[1:]) else "prefix" if ordered else "any"
                seen[kind] += 1
    total = sum(seen.values())
    assert seen["draft"] > seen["group"] > 0.2 * total and seen["prefix"] > 0.1 * total and seen["any"] > 0.1 * total


def test_full_copy_is_what_a_draft_sees():
    noisy = noisy_copy(ANSWER[:-1], False, 2, 16, random.Random(0), block=8, full=True)
    assert noisy.start == [i // 8 * 8 for i in range(23)]
    assert noisy.masked == [i % 8 != 0 for i in range(23)]
    assert noisy.distance == [i % 8 + 1 for i in range(23)]
    assert noisy.target == [*range(1, 23), -1]


@pytest.mark.parametrize("seed", range(10))
def test_blocks_begin_at_hard_tokens_alone(seed):
    hard = [i in (3, 4, 15, 21) for i in range(len(ANSWER))]
    noisy = noisy_copy(ANSWER, True, 2, 16, random.Random(seed), block=6, hard=hard)
    # From 4 on, the next hard token is in the first block; between 6 and 15 nothing begins.
    assert sorted(set(noisy.start)) == [0, 15, 21]
    assert noisy.index == [*range(6), *range(15, 21), *range(21, 27)]
    padded = ANSWER + [2] * MAX_PADS
    for i, index in enumerate(noisy.index):
        assert noisy.tokens[i] == (16 if noisy.masked[i] else padded[index])
        if noisy.target[i] >= 0:
            assert (noisy.target[i], noisy.label[i]) == (index + 1, padded[index + 1])


def test_common_prefix_leaves_every_prompt_a_token():
    def sequence(*prompt):
        return Sequence(list(prompt), [5, 2])

    assert common_prefix([sequence(1, 2, 3, 4), sequence(1, 2, 9)]) == 2
    assert common_prefix([sequence(1, 2), sequence(1, 2, 3)]) == 1
    assert common_prefix([sequence(1, 2, 3)]) == 2
