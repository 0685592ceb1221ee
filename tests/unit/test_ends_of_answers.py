"""What ends an answer: config.json's EOS, generation_config.json's besides, or else the tokenizer's."""

import json

import pytest

from nemodiff.engine.loading import load
from nemodiff.errors import CheckpointError
from nemodiff.evaluate.agreement import agreement
from nemodiff.model.weights import read_config
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Lane
from tests.helpers.chat import END, END_OF_TEXT, write_templated, write_tokenizer
from tests.helpers.checkpoints import VOCABULARY, open_engine, random_llama, write_llama


def generation(folder, value):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value, "bos_token_id": 1}))
    return folder


@pytest.mark.parametrize(
    ("own", "more", "both"),
    [
        (0, [0, 2], (0, 2)),
        ([0, 5], 2, (0, 5, 2)),
        (0, None, (0,)),
        (None, [2, 2], (2,)),
        (7, [], (7,)),
    ],
)
def test_both_files_are_read(tmp_path, own, more, both):
    folder = generation(write_llama(random_llama(), tmp_path / "m", eos_token_id=own), more)
    assert read_config(folder).eos_token_ids == both


def test_an_answer_ends_at_either(tmp_path):
    plain = open_engine(write_llama(random_llama(), tmp_path / "plain", eos_token_id=0))
    settings = {"prompt_ids": (5, 17, 42), "max_new_tokens": 20}
    tokens = plain.generate(Request(modes=("ar",), **settings)).lanes[0].tokens
    end = tokens[5]
    folder = generation(write_llama(random_llama(), tmp_path / "m", eos_token_id=0), [0, end])
    engine = load(str(folder), device="cpu", dtype="float32")
    for mode in MODES:
        lane = engine.generate(Request(modes=(mode,), **settings)).lanes[0]
        assert end in lane.tokens or mode == "diffusion"
        if lane.finish == "eos":
            assert lane.tokens[-1] in (0, end)
            assert end not in lane.tokens[:-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "generation_config.json is damaged"),
        ("[]", "generation_config.json is damaged"),
        ('{"eos_token_id": 5000}', f"generation_config.json sets eos_token_id to 5000.*vocabulary of {VOCABULARY}"),
        ('{"eos_token_id": ["2"]}', "generation_config.json sets eos_token_id to '2'"),
        ('{"eos_token_id": true}', "generation_config.json sets eos_token_id to True"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path, text, says):
    folder = write_llama(random_llama(), tmp_path / "m")
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=says):
        read_config(folder)


def test_without_either_the_tokenizers_end_counts(tmp_path):
    folder = write_templated(tmp_path / "m", eos_token_id=None)
    write_tokenizer(folder, eos_token="<|im_end|>")
    assert load(str(folder), device="cpu", dtype="float32").model.config.eos_token_ids == (END,)
    generation(folder, END_OF_TEXT)
    assert load(str(folder), device="cpu", dtype="float32").model.config.eos_token_ids == (END_OF_TEXT,)


def test_without_any_end_it_is_said(tmp_path):
    folder, said = write_llama(random_llama(), tmp_path / "m", eos_token_id=None), []
    engine = load(str(folder), device="cpu", dtype="float32", report=said.append)
    assert said == ["m names no token that ends an answer: answers end at their length limit."]
    trace = engine.generate(Request(prompt_ids=(5,), max_new_tokens=9))
    assert {lane.finish for lane in trace.lanes} == {"length"}


@pytest.mark.parametrize(
    ("tokens", "reference", "share"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([], [], 1.0),
        ([1, 2, 3, 4], [1, 2, 3], 0.75),
        ([1, 2, 3], [1, 2, 3, 4], 0.75),
        ([1, 2], [], 0.0),
        ([], [1, 2], 0.0),
        ([1, 9, 9, 9, 9, 9], [1, 2, 3, 4], 0.25),
        ([9, 2, 3], [1, 2, 3], 0.0),
    ],
)
def test_agreement_is_whole_for_identical_answers_alone(tokens, reference, share):
    assert agreement(Lane("diffusion", tokens=tokens), Lane("ar", tokens=reference)) == share
    assert (share == 1.0) == (tokens == reference)
