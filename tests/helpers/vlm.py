"""Small random checkpoints in the layout of the vision-language model."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Ministral3Config, Mistral3Config, Mistral3Model, PixtralVisionConfig

from tests.helpers.official import SHAPE, YARN, random_ministral, spread, write_nvidia
from tests.helpers.released import FREQUENT

IMG, BREAK, END = 10, 12, 13


SPELT = {IMG: "[IMG]", BREAK: "[IMG_BREAK]", END: "[IMG_END]"}


TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 48,
    "rope_theta": 10000.0,
    "hidden_act": "gelu",
    "model_type": "pixtral",
}


def random_mistral3(seed: int = 5) -> Mistral3Model:
    """transformers' Mistral3 with a random tower and projector; its language model is not used."""
    torch.manual_seed(seed)
    tower = {key: value for key, value in TOWER.items() if key not in ("model_type", "rope_theta")}
    vision = PixtralVisionConfig(**tower, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    text = Ministral3Config(**SHAPE, rope_parameters=dict(YARN))
    return spread(Mistral3Model(Mistral3Config(vision_config=vision, text_config=text, spatial_merge_size=2)))


def write_vlm(folder: Path, tokenizer: bool = False, drop: str | None = None, spelt: bool = True, **config) -> Path:
    """A random checkpoint in the layout of nvidia/Nemotron-Labs-Diffusion-VLM-8B.

    drop: a tensor to leave out. spelt: whether the tokenizer knows the pictures' tokens by NVIDIA's names.
    """
    seeing = {
        f"encoder.{name}": tensor.contiguous()
        for name, tensor in random_mistral3().state_dict().items()
        if name.startswith(("vision_tower.", "multi_modal_projector.")) and "inv_freq" not in name and name != drop
    }
    settings = {
        "model_type": "nemotron_labs_diffusion_vlm",
        "architectures": ["NemotronLabsDiffusionVLMModel"],
        "vision_config": TOWER,
        "spatial_merge_size": 2,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": False,
        "vision_feature_layer": -1,
        "image_token_id": IMG,
        "image_break_token_id": BREAK,
        "image_end_token_id": END,
    }
    write_nvidia(random_ministral(frequent=FREQUENT), folder, tokenizer=tokenizer, extra=seeing, **settings | config)
    if tokenizer and spelt:
        _spell(folder / "tokenizer.json")
    return folder


def _spell(file: Path) -> None:
    """Give the pictures' tokens their names and make them special, so that no text around them joins them."""
    text = file.read_text()
    for token, name in SPELT.items():
        text = text.replace(f'"w{token}":', f'"{name}":')
    file.write_text(text)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens([*SPELT.values()])
    tokenizer.save(str(file))
