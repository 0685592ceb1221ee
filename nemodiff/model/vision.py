"""Vision: a Pixtral tower and Mistral3's projector before the transformer; a picture → an embedding for each token.

Both come from transformers. Layout and preprocessing as released: model card of Nemotron-Labs-Diffusion-VLM-8B.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nemodiff.model.config import ModelConfig, VisionConfig
from nemodiff.pictures import Picture

#: CLIP's, of red, green and blue in 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: Pictures whose features are kept; the largest of the VLM-8B takes 50 MB in float32.
_KEPT = 8


class Vision(nn.Module):
    """Tower and projector, under NVIDIA's names less their "encoder."; uninitialised. One picture at a time."""

    def __init__(self, config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        super().__init__()
        # Imported here: they take seconds that text checkpoints need not wait.
        from transformers.models.mistral3.modeling_mistral3 import Mistral3MultiModalProjector
        from transformers.models.pixtral.modeling_pixtral import PixtralVisionModel

        if config.vision is None:
            raise ValueError("this model sees no pictures")
        self.config = config.vision
        pixtral = _pixtral(config.vision)
        # The projector reads these of its config alone.
        settings: Any = SimpleNamespace(
            vision_config=pixtral,
            text_config=SimpleNamespace(hidden_size=config.hidden_size, rms_norm_eps=config.rms_norm_eps),
            spatial_merge_size=config.vision.merge_size,
            vision_feature_layer=_plain(config.vision.feature_layer),
            multimodal_projector_bias=config.vision.projector_bias,
            projector_hidden_act=config.vision.projector_act,
        )
        with torch.device("meta"):
            self.vision_tower = PixtralVisionModel(pixtral)
            self.multi_modal_projector = Mistral3MultiModalProjector(settings)
        self.to(dtype).to_empty(device=device)
        if torch.device(device).type != "meta":
            tower = self.vision_tower  # the rotary frequencies are in no file
            tower.patch_positional_embedding = type(tower.patch_positional_embedding)(pixtral).to(device)
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Features [rows * columns, hidden] of a picture, row by row. pixels: [3, height, width] as of `preprocess`."""
        weight = self.multi_modal_projector.linear_1.weight
        layer, last = self.config.feature_layer, (-1, self.config.num_layers)
        out = self.vision_tower(
            pixels[None].to(weight.device, weight.dtype),
            image_sizes=[tuple(pixels.shape[1:])],
            output_hidden_states=layer not in last,
        )
        if layer in last:
            seen = out.last_hidden_state
        elif isinstance(layer, int):
            seen = out.hidden_states[layer]
        else:
            seen = torch.cat([out.hidden_states[one] for one in layer], dim=-1)
        return self.multi_modal_projector(seen[0], [tuple(pixels.shape[1:])])

    @torch.inference_mode()
    def encode(self, picture: Picture) -> Tensor:
        """Features [rows * columns, hidden] of a picture, in the projector's dtype."""
        return self(preprocess(picture, self.config))


class PictureCache:
    """A Vision that knows the pictures it encoded last, by their digests."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision
        self._features: OrderedDict[str, Tensor] = OrderedDict()

    def knows(self, picture: Picture) -> bool:
        """Whether `encode` would have nothing to compute."""
        return picture.digest in self._features

    def encode(self, picture: Picture) -> Tensor:
        """Features [rows * columns, hidden] of a picture, computed when it was not among the last ones."""
        features = self._features.pop(picture.digest, None)
        if features is None:
            features = self._vision.encode(picture)
        self._features[picture.digest] = features
        if len(self._features) > _KEPT:
            self._features.popitem(last=False)
        return features


def grid(config: VisionConfig, width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of the tokens that a picture of this size in pixels becomes: one a `config.unit` squared.

    A picture larger than the tower's is shrunk; either way its sides are then rounded up to whole tokens.
    """
    most = config.image_size // config.unit * config.unit
    ratio = max(height / most, width / most, 1.0)
    sides = (max(1, math.floor(side / ratio)) for side in (height, width))
    rows, columns = (math.ceil(side / config.unit) for side in sides)
    return rows, columns


def preprocess(picture: Picture, config: VisionConfig) -> Tensor:
    """Pixels [3, height, width] in float32, resized to whole tokens (bicubic) and normalised as CLIP's are."""
    rows, columns = grid(config, picture.width, picture.height)
    size = (columns * config.unit, rows * config.unit)
    image = picture.image if picture.image.size == size else picture.image.resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1).contiguous()


def _pixtral(config: VisionConfig) -> Any:
    from transformers.models.pixtral.configuration_pixtral import PixtralVisionConfig

    return PixtralVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        patch_size=config.patch_size,
        image_size=config.image_size,
        hidden_act=config.hidden_act,
        rope_parameters={"rope_theta": config.rope_theta},
    )


def _plain(layer: int | tuple[int, ...]) -> int | list[int]:
    return layer if isinstance(layer, int) else list(layer)
