"""Runner: what decoding knows of a model. The CPU kernels are one, torch another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nemodiff.model.config import ModelConfig
from nemodiff.model.layout import Layout
from nemodiff.model.output import Output

if TYPE_CHECKING:
    from nemodiff.model.cuda.graphs import StaticForwards
    from nemodiff.model.transformer import Matrix
    from nemodiff.model.vision import Vision


class Runner(Protocol):
    """A model that runs forwards: `Transformer` in torch, `CpuModel` in kernels of our own.

    exact: a token's logits have the same bits alone and in a block. dtype: what activations are in.
    mask_embedding: the input embedding of the mask [hidden] where a checkpoint trained its own. static: forwards of
    fixed shapes, where they were asked for.
    """

    config: ModelConfig
    exact: bool
    embed: Matrix
    mask_embedding: Tensor | None
    vision: Vision | None
    static: StaticForwards | None

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def dtype_name(self) -> str:
        """What the linears run in: float32, bfloat16 or int8."""

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""

    @property
    def lora_bytes(self) -> int:
        """Memory of the draft LoRA, in bytes."""

    def new_cache(self, capacity: int) -> Any:
        """An empty cache for `capacity` positions."""

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows]."""

    def run(
        self,
        inputs: Tensor,
        cache: Any,
        *,
        causal: bool,
        adapter: bool = False,
        layout: Layout | None = None,
        rows: slice = slice(None),
        few: int = 0,
    ) -> Output:
        """Run `inputs` after the cache's kept length and write, not keep, their keys and values.

        inputs: token ids [rows] (int64) or embeddings [rows, hidden]. causal: each row sees what is before it; else
        all see each other; layout: positions and visibility in place of it. adapter: the draft LoRA is on, but for a
        layout's first `plain` rows. rows: whose logits are wanted. few: how many of the best tokens, where the runner
        reads them off.
        """

    def __call__(
        self,
        inputs: Tensor,
        cache: Any,
        *,
        causal: bool,
        adapter: bool = False,
        last: bool = False,
        layout: Layout | None = None,
    ) -> Tensor:
        """The logits [rows, or 1 where only the last are wanted, vocab] of `run`."""
