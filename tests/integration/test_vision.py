"""Pictures in prompts: features and prefix against transformers' Mistral3, tokens of every mode against a slow loop."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PixtralImageProcessorPil

from nemodiff.cli.main import main
from nemodiff.conversation import Message
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.vision import grid, preprocess
from nemodiff.pictures import Picture
from nemodiff.request import Request
from nemodiff.settings import DRAFTS
from nemodiff.trace.events import MODES, Trace
from tests.helpers.official import EOS, SHAPE, random_ministral, write_nvidia
from tests.helpers.released import FREQUENT, Released
from tests.helpers.vlm import BREAK, END, IMG, TOWER, random_mistral3, write_vlm


def picture(width: int, height: int, seed: int = 0) -> Picture:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Picture.of(Image.fromarray(noise.numpy()))


def placeholders(*grids: tuple[int, int]) -> list[int]:
    """The tokens of pictures of these (rows, columns), written out."""
    tokens = []
    for rows, columns in grids:
        for row in range(rows):
            tokens += [IMG] * columns + [END if row == rows - 1 else BREAK]
    return tokens


class SeeingReleased(Released):
    """The slow loop with the features of pictures in place of their tokens' embeddings."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__(lora=False)
        self.features = features
        table = self.encoder.embed_tokens.weight

        def see(_module, inputs, _output):
            embedded = table[inputs[0]].clone()
            places = (inputs[0][0] == IMG).nonzero()[: len(features), 0]
            embedded[0, places] = features
            return embedded

        self.encoder.embed_tokens.register_forward_hook(see)


@torch.no_grad()
def official_features(*pictures: Picture) -> torch.Tensor:
    """What transformers makes of pictures, by its own processor, tower and projector."""
    processor = PixtralImageProcessorPil(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8})
    model, features = random_mistral3(), []
    for one in pictures:
        made = processor(one.image, return_tensors="pt")
        out = model.get_image_features(made["pixel_values"], made["image_sizes"], vision_feature_layer=-1)
        features += out.pooler_output
    return torch.cat(features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_vlm(tmp_path_factory.mktemp("vlm") / "model", tokenizer=True)


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return load(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((48, 48), 6, 6), ((9, 17), 3, 2), ((96, 48), 3, 6), ((500, 12), 1, 6), ((8, 16), 2, 1), ((1, 9), 2, 1)],
)
def test_a_picture_becomes_transformers_features(engine, size, rows, columns):
    one = picture(*size)
    assert grid(engine.model.config.vision, *size) == (rows, columns)
    expected = official_features(one)
    assert preprocess(one, engine.model.config.vision).shape == (3, rows * 8, columns * 8)
    torch.testing.assert_close(engine.model.vision.encode(one), expected, atol=2e-4, rtol=1e-3)


PICTURES = {"one": (picture(20, 30),), "two": (picture(48, 16, 1), picture(9, 8, 2))}


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("names", PICTURES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tokens_of_all_modes_are_those_of_a_slow_loop(engine, names, block, seed):
    pictures = PICTURES[names]
    grids = [grid(engine.model.config.vision, one.width, one.height) for one in pictures]
    rest = torch.randint(14, 70, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
    prompt = [3, *placeholders(*grids), *rest]
    slow = SeeingReleased(official_features(*pictures))
    request = Request(prompt_ids=tuple(prompt), images=pictures, max_new_tokens=18, block_length=block, threshold=0.2)
    trace = engine.generate(request)
    lanes = {lane.mode: (lane.tokens, lane.nfe) for lane in trace.lanes}
    assert lanes["ar"] == slow.ar(prompt, 18, {EOS}, None)
    assert lanes["diffusion"] == slow.diffusion(prompt, 18, {EOS}, None, block, threshold=0.2)
    assert lanes["self-speculation"] == slow.linear(prompt, 18, {EOS}, None, block)
    assert lanes["self-speculation"][0] == lanes["ar"][0]
    quadratic = Request(
        prompt_ids=tuple(prompt),
        images=pictures,
        max_new_tokens=18,
        block_length=4,
        draft="quadratic",
        modes=("self-speculation",),
    )
    assert engine.generate(quadratic).lanes[0].tokens == lanes["ar"][0]
    assert trace.image_grids == grids and trace.image_ms is not None
    assert Trace.from_json(trace.to_json()).image_grids == grids
    assert trace.request["images"] == [[one.width, one.height] for one in pictures]


def test_without_pictures_it_decodes_text(folder, tmp_path):
    """Its text hyper-parameters stand at the root; a text checkpoint has no use for a tower."""
    text = write_nvidia(random_ministral(frequent=FREQUENT), tmp_path / "text")
    request = Request(prompt_ids=(5, 6, 7), max_new_tokens=8)
    lanes = [load(str(path), device="cpu", dtype="float32").generate(request).lanes for path in (folder, text)]
    assert [lane.tokens for lane in lanes[0]] == [lane.tokens for lane in lanes[1]]
    blind = write_vlm(tmp_path / "blind", model_type="nemotron_labs_diffusion")
    with pytest.raises(CheckpointError, match=r"unexpected encoder\.multi_modal_projector\.linear_1\.weight"):
        load(str(blind), device="cpu")


def test_the_picture_matters(engine):
    prompt = (3, *placeholders((4, 3)), 20, 21)
    texts = {
        tuple(engine.generate(Request(prompt_ids=prompt, images=(one,), modes=("ar",))).lanes[0].tokens)
        for one in (picture(24, 32, 3), picture(24, 32, 4))
    }
    assert len(texts) == 2


def test_a_picture_is_encoded_once(engine, monkeypatch):
    one, encoded = picture(24, 24, 9), []
    encode = engine.model.vision.encode
    monkeypatch.setattr(engine.model.vision, "encode", lambda picture: encoded.append(picture) or encode(picture))
    request = Request(prompt="w20", images=(one,), max_new_tokens=2)
    first, second = engine.generate(request), engine.generate(request)
    assert first.lanes[0].tokens == second.lanes[0].tokens
    assert encoded == [one]
    assert first.image_ms > 0 == second.image_ms


@pytest.mark.parametrize("size", [(8, 8), (1, 1)])
def test_the_smallest_pictures_become_one_token(engine, size):
    assert grid(engine.model.config.vision, *size) == (1, 1)
    features = engine.model.vision.encode(picture(*size))
    assert features.shape == (1, SHAPE["hidden_size"]) and features.isfinite().all()


@pytest.mark.parametrize("named", [True, False])
def test_prompts_are_built_from_the_template(engine, tmp_path, named):
    """Without ids in config.json, those of the tokenizer's own tokens are taken."""
    if not named:
        ids = dict.fromkeys(("image_token_id", "image_break_token_id", "image_end_token_id"))
        engine = load(str(write_vlm(tmp_path / "m", tokenizer=True, **ids)), device="cpu", dtype="float32")
    pictures = PICTURES["two"]
    grids = [grid(engine.model.config.vision, one.width, one.height) for one in pictures]
    ids = engine.encode(Request(prompt="w20 w21", images=pictures))
    assert ids == [*placeholders(*grids), 20, 21, 76]
    assert engine.encode(Request(prompt="w20 w21")) == [20, 21, 76]


def test_a_picture_of_an_earlier_turn_stands_in_its_turn(tmp_path):
    folder = write_vlm(tmp_path / "m", tokenizer=True)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{{ '[IMG] ' if part.type == 'image' else part.text }}{% endfor %}{% endif %} <think> {% endfor %}"
    )
    engine, pictures = load(str(folder), device="cpu", dtype="float32"), PICTURES["two"]
    first, second = ([grid(engine.model.config.vision, one.width, one.height)] for one in pictures)
    asked, answered = Message("user", "w20", 1), Message("assistant", "w22")
    request = Request(prompt="w21", history=(asked, answered), images=pictures, max_new_tokens=4, modes=("ar",))
    ids = [*placeholders(*first), 20, 76, 22, 76, *placeholders(*second), 21, 76]
    assert engine.encode(request) == ids
    given = engine.generate(Request(prompt_ids=ids, images=pictures, max_new_tokens=4, modes=("ar",)))
    trace = engine.generate(request)
    assert trace["ar"].tokens == given["ar"].tokens
    assert Trace.from_json(trace.to_json()).request["history"][0] == {"role": "user", "content": "w20", "images": 1}
    only = Request(prompt="w21", history=(asked, answered), images=pictures[:1], modes=("ar",))
    assert engine.encode(only) == [*placeholders(*first), 20, 76, 22, 76, 21, 76]
    with pytest.raises(RequestError, match=r"^The conversation brought pictures \(1\) that are not given: give"):
        Request(prompt="w21", history=(asked, answered))


def test_what_does_not_fit_gets_a_sentence(engine, tmp_path):
    one = picture(24, 24)
    with pytest.raises(RequestError, match="1 image tokens for pictures of 9 features"):
        engine.stream(Request(prompt_ids=(IMG, 5), images=(one,)))
    with pytest.raises(RequestError, match=r"holds the image token '\[IMG\]' itself"):
        engine.stream(Request(prompt="[IMG]", images=(one,)))
    text = load(str(write_nvidia(random_ministral(), tmp_path / "text")), device="cpu", dtype="float32")
    assert engine.sees and not text.sees
    with pytest.raises(RequestError, match="text sees no pictures: leave them out, or choose a checkpoint that does"):
        text.stream(Request(prompt_ids=(5,), images=(one,)))


def test_ids_that_neither_config_nor_tokenizer_has(tmp_path):
    ids = dict.fromkeys(("image_token_id", "image_break_token_id", "image_end_token_id"))
    folder = write_vlm(tmp_path / "m", tokenizer=True, spelt=False, **ids)
    blind = load(str(folder), device="cpu", dtype="float32")
    with pytest.raises(RequestError, match=r"names no \[IMG\] token"):
        blind.stream(Request(prompt="w20", images=(picture(8, 8),)))


def test_a_template_that_drops_the_pictures(tmp_path):
    folder = write_vlm(tmp_path / "m", tokenizer=True)
    (folder / "chat_template.jinja").write_text("{% if 'image' %}w20{% endif %}")
    with pytest.raises(RequestError, match=r"chat template leaves out the image token '\[IMG\]'"):
        load(str(folder), device="cpu", dtype="float32").stream(Request(prompt="w20", images=(picture(8, 8),)))


def test_a_tower_that_misses_a_tensor(tmp_path):
    with pytest.raises(CheckpointError, match="missing encoder.multi_modal_projector.linear_1.weight"):
        load(str(write_vlm(tmp_path / "m", drop="multi_modal_projector.linear_1.weight")), device="cpu")
    whole = write_vlm(tmp_path / "n")
    tensors = load_file(whole / "model.safetensors")
    tensors["encoder.vision_tower.ln_pre.weight"] = torch.ones(31)
    save_file(tensors, whole / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"ln_pre.weight is \[31\], not \[32\]"):
        load(str(whole), device="cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_config": None}, "vision_config"),
        ({"vision_config": TOWER | {"hidden_size": 30}}, "no multiple of 4 times its 2 heads"),
        ({"vision_config": TOWER | {"image_size": 4}}, "one token takes 8 pixels"),
        ({"projector_hidden_act": "wave"}, "projector_hidden_act to 'wave'"),
        ({"vision_feature_layer": 9}, "vision_feature_layer to 9"),
        ({"image_token_id": 5000}, "image_token_id"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path, change, says):
    with pytest.raises(CheckpointError, match=says):
        load(str(write_vlm(tmp_path / "m", **change)), device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_command_line_takes_pictures(folder, tmp_path, capsys, dtype):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, one in zip(files, PICTURES["two"], strict=True):
        one.image.save(file)
    command = ["generate", "--checkpoint", str(folder), "--device", "cpu", "--dtype", dtype, "--prompt", "w20"]
    assert main([*command, "--image", str(files[0]), "--image", str(files[1]), "--max-new-tokens", "9", "--json"]) == 0
    lanes = json.loads(capsys.readouterr().out)["lanes"]
    assert set(lanes) == set(MODES) and len(lanes["ar"]["tokens"]) > 0
    assert lanes["self-speculation"]["tokens"] == lanes["ar"]["tokens"]
    (tmp_path / "text.png").write_text("no picture")
    assert main([*command, "--image", str(tmp_path / "text.png")]) != 0
    assert "not a picture" in capsys.readouterr().err


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_fresh_engine_on_the_kernels_looks_at_a_picture_with_every_kind_of_draft(folder, draft):
    """Trees measure what rows cost before the first prefill: nothing that this leaves behind may stop a picture."""
    engine = load(str(folder), device="cpu")
    assert engine.dtype == "int8"
    request = Request(prompt="Look.", images=(picture(16, 16),), draft=draft, max_new_tokens=12, block_length=4)
    trace = engine.generate(request)
    assert trace.lane("self-speculation").tokens == trace.lane("ar").tokens and trace.lane("diffusion").tokens
