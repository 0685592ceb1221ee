"""Files of the small networks that come with a checkpoint: NAME.safetensors (fp16) and NAME_config.json in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nemodiff.errors import CheckpointError
from nemodiff.json_fields import Fields

Network = TypeVar("Network", bound=nn.Module)


def save_network(network: nn.Module, folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Write both files; returns that of the tensors. settings: the network's sizes, and notes on how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().half().contiguous() for key, tensor in network.state_dict().items()}
    save_file(tensors, folder / f"{name}.safetensors")
    text = json.dumps({"model_type": f"nemodiff_{name}", **settings}, indent=2)
    (folder / f"{name}_config.json").write_text(text + "\n", encoding="utf-8")
    return folder / f"{name}.safetensors"


def load_network(
    folder: Path, name: str, title: str, largest: Mapping[str, int], make: Callable[[dict[str, int], Fields], Network]
) -> Network:
    """Read what `save_network` wrote, as fp32 without gradients.

    title: what the network is, in words. largest: its sizes, and what none of them reaches. make: the network of given
    sizes; it may raise ValueError. Raises CheckpointError.
    """
    file = f"{name}_config.json"
    try:
        config = Fields(json.loads((folder / file).read_text(encoding="utf-8")), file)
        sizes = {key: config.count(key, most=most) for key, most in largest.items()}
        with torch.device("meta"):  # sizes that the file does not have take no memory
            network = make(sizes, config)
        tensors = {key: tensor.float() for key, tensor in load_file(folder / f"{name}.safetensors").items()}
        network.load_state_dict(tensors, assign=True)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder.name}'s {title} cannot be read: fetch the checkpoint again.") from error
    if odd := [key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"{folder.name}/{name}.safetensors is damaged: {odd[0]} holds values that are no finite numbers; "
            "fetch the checkpoint again."
        )
    return network.eval().requires_grad_(False)
