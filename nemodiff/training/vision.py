"""Training of the small vision checkpoint: a tower and projector before the tri-mode model.

Three steps, since two cores see far too few answers to learn to see from them:

1. `codes`: what a picture's tokens should hold. Every attribute ("red", "circle", "three") gets an embedding, that
   of its word to begin with; a cell's code is the sum of its attributes'. The embeddings and a low-rank update of the
   model are trained on questions and answers until it answers from codes. No pixels are involved.
2. `seeing`: the tower, on many drawings and without the model: throw-away heads on the projector's inner layer name
   each cell's attributes, and its output is drawn to the cell's code.
3. `answers`: all of it together, from pixels to the loss of the answers, AR and diffusion.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nemodiff.checkpoints.catalogue import BASE, DEFAULT
from nemodiff.engine.devices import training_dtype
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.errors import CheckpointError
from nemodiff.model.cpu.pack import quantise_rows
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import read_json, unpack
from nemodiff.tasks.drawings.codes import ATTRIBUTES, attributes
from nemodiff.tasks.drawings.free_scenes import free_scene
from nemodiff.tasks.drawings.questions import ask
from nemodiff.tasks.drawings.scenes import CROWDS, FOREIGN, KINDS, Scene
from nemodiff.training.data import Sequence, pack
from nemodiff.training.drawings import drawn, fit_codes
from nemodiff.training.dual_stream import Backbone, forward
from nemodiff.training.lora import Lora, export_adapter
from nemodiff.training.noisy_copies import noisy_copy
from nemodiff.training.objective import loss_of
from nemodiff.training.progress import log_figures, read_state, save_state
from nemodiff.training.tower import BREAK, END, IMAGE, TOWER, Heads, new_vision, pixels, see
from nemodiff.training.workers import add_up, average, run_together

STEPS = ("codes", "seeing", "answers")
RANK = 8


@dataclass(slots=True)
class Settings:
    """One training run, as its state keeps it. minutes: those of each of STEPS."""

    checkpoint: str
    out: str
    minutes: Many[float] = (10.0, 60.0, 15.0)
    start: str | None = None  # folder of exported files to go on from
    seed: int = 0
    answers: int = 12  # a step through the model
    pictures: int = 16  # a step of the tower alone
    save_minutes: float = 2.0
    workers: int = 1  # processes, a thread each where they are several; every one draws `answers` and `pictures`


class Reader:
    """The model as pictures reach it: questions about scenes, features in, loss out."""

    def __init__(self, engine: Engine) -> None:
        if not isinstance(engine.model, Transformer):
            raise CheckpointError("Training needs weights in floats: choose bfloat16 or float32.")
        self.tokenizer = engine.tokenizer
        self.backbone = Backbone.of(engine.model)
        self.end = engine.model.config.eos_token_ids[0]
        self.mask = engine.model.config.mask
        known = set(range(4000))
        for kind in (*KINDS, FOREIGN):
            for i in range(400):
                known.update(self.tokenizer.encode(ask(free_scene(kind, f"words {i}"), i).answer, raw=True))
        vocabulary = torch.tensor(sorted(known))
        self.restricted = torch.full((len(self.backbone.head),), -1, dtype=torch.long)
        self.restricted[vocabulary] = torch.arange(len(vocabulary))
        self.head = self.backbone.head[vocabulary].contiguous()

    def embeddings(self) -> Tensor:
        """What attributes begin as, [attributes, hidden]."""
        table = self.backbone.embedding.float()
        return torch.stack([table[self.tokenizer.encode(words, raw=True)].mean(0) for words in ATTRIBUTES.values()])

    def sequence(self, one: Scene, seed: str) -> Sequence:
        """A question about a scene and its answer as ids, the picture's tokens spelt out."""
        question = ask(one, seed)
        width, height = one.image.size
        row = [IMAGE] * (width // TOWER.unit) + [BREAK]
        picture = row * (height // TOWER.unit)
        picture[-1] = END
        prompt = self.tokenizer.encode(question.text, False, [IMAGE])
        at = prompt.index(IMAGE)
        answer = [*self.tokenizer.encode(question.answer, raw=True), self.end]
        return Sequence(prompt[:at] + picture + prompt[at + 1 :], answer)

    def loss(self, sequences: list[Sequence], features: Tensor, lora: Lora, rng: random.Random) -> tuple[Tensor, dict]:
        """Joint loss of the answers, with the features [cells of all pictures, hidden] in their order; its figures."""
        noisy = [[noisy_copy(one.answer, True, self.end, self.mask, rng)] for one in sequences]
        batch = pack(
            sequences,
            noisy,
            self.restricted,
            dtype=self.backbone.embedding.dtype,
            prefix=sequences[0].prompt.index(IMAGE),
        )
        rows = (batch.stream.tokens == IMAGE).nonzero()[:, 0]
        hidden = forward(self.backbone, batch.stream, lora, (rows, features))
        loss, figures = loss_of(self.backbone, hidden, batch, self.head)
        return loss, figures.as_dict()


class Run:
    """Everything that learns, and the file in which it is kept."""

    def __init__(self, settings: Settings, *, resume: bool = False, worker: int = 0) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.out, self.worker = settings, Path(settings.out), worker
        engine = load(settings.checkpoint, device="cpu", dtype=training_dtype("cpu"))
        self.reader = Reader(engine)
        mask = self.reader.backbone.mask_embedding
        if mask is None:
            raise CheckpointError(f"{engine.checkpoint} trained no mask embedding: choose the default checkpoint.")
        self.codes = nn.Parameter(self.reader.embeddings())
        self.lora = Lora(self.reader.backbone.layers, RANK, mask.float(), seed=settings.seed)
        self.update = nn.Parameter(self.lora.values)
        self.update.grad = self.lora.grads
        self.vision = new_vision(engine.model.config, settings.seed)
        self.heads = Heads(TOWER.hidden_size, engine.model.config.hidden_size)
        self.steps, self.seconds = dict.fromkeys(STEPS, 0), dict.fromkeys(STEPS, 0.0)
        # What the files that this run goes on from had learnt.
        self.before: dict[str, dict] = {name: {"steps": 0, "minutes": 0.0} for name in STEPS}
        turned = [one for one in self.vision.parameters() if one.dim() == 2]
        others = [one for one in self.vision.parameters() if one.dim() != 2] + [*self.heads.parameters()]
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {
            "codes": [_adam((8e-3, [self.codes]), (1.5e-3, [self.update]))],
            "seeing": [_muon(2e-3, turned), _adam((1.2e-3, others))],
            "answers": [_adam((1e-4, [*self.vision.parameters()]), (1.5e-3, [self.update]))],
        }
        self.rates = {
            name: [group["lr"] for one in optimizers for group in one.param_groups]
            for name, optimizers in self.optimizers.items()
        }
        if resume:
            self._restore(read_state(self.out / "state.pt"))
        elif settings.start:
            self._start(Path(settings.start))

    def save(self) -> None:
        """Write state.pt, whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "seconds": self.seconds,
            "before": self.before,
            "codes": self.codes.data,
            "update": self.lora.values,
            "vision": self.vision.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": {name: [one.state_dict() for one in many] for name, many in self.optimizers.items()},
        }
        save_state(self.out, state)

    def _restore(self, state: dict) -> None:
        self.steps, self.seconds, self.before = state["steps"], state["seconds"], state["before"]
        self.codes.data.copy_(state["codes"])
        self.lora.values.copy_(state["update"])
        self.lora.merge()
        self.vision.load_state_dict(state["vision"])
        self.heads.load_state_dict(state["heads"])
        for name, optimizers in self.optimizers.items():
            for one, kept in zip(optimizers, state["optimizers"][name], strict=True):
                one.load_state_dict(kept)

    @torch.no_grad()
    def _start(self, folder: Path) -> None:
        """Take exported files. They hold neither heads, which are learnt anew, nor codes, which are fitted."""
        before: Any = read_json(folder / "adapter_config.json").get("trained")
        self.lora.load(folder)
        parameters = {f"encoder.{name}": parameter for name, parameter in self.vision.named_parameters()}
        try:
            self.before = {name: {"steps": before[name]["steps"], "minutes": before[name]["minutes"]} for name in STEPS}
            unpack(load_file(folder / "vision.safetensors"), parameters)
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{folder} holds no exported tower of this shape: name another folder.") from error
        fit_codes(self.codes, lambda scenes: see(self.vision, pixels(scenes))[2], self.settings.seed)

    def train(self, report: Callable[[str], None] = print) -> None:
        """All steps, each for what is left of its minutes by worker 0's clock; a line of log.jsonl every 20 steps."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name, minutes in zip(STEPS, self.settings.minutes, strict=True):
            saved = time.monotonic()
            while self.seconds[name] < 60 * minutes:
                began = time.monotonic()
                figures = self.step(name, self.seconds[name] / (60 * minutes))
                took = torch.tensor(0.0 if self.worker else time.monotonic() - began, dtype=torch.float64)
                self.seconds[name] += add_up(took, self.settings.workers).item()
                if self.worker:
                    continue
                if self.steps[name] % 20 == 0:
                    log_figures(self.out, {"part": name, "step": self.steps[name], **figures}, report)
                if time.monotonic() - saved > 60 * self.settings.save_minutes:
                    self.save()
                    saved = time.monotonic()
            if not self.worker:
                self.save()

    def step(self, name: str, progress: float) -> dict:
        """One step of a part, `progress` (0 to 1) through it; its figures."""
        number, optimizers = self.steps[name], self.optimizers[name]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=False)
        self.lora.zero_grad()
        loss, figures = getattr(self, f"_{name}")(number * self.settings.workers + self.worker)
        loss.backward()
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        average([one.grad for group in groups for one in group["params"]], self.settings.workers)
        fall = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group, rate in zip(groups, self.rates[name], strict=True):
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            group["lr"] = rate * min(1.0, (number + 1) / 20) * fall
        for optimizer in optimizers:
            optimizer.step()
        if name != "seeing":
            self.lora.merge()
        self.steps[name] += 1
        return figures

    def _codes(self, number: int) -> tuple[Tensor, dict]:
        scenes = drawn(f"codes/{number}", self.settings.answers, self.settings.seed)
        features = torch.cat([attributes(one).float() @ self.codes for one in scenes])
        return self._answered(scenes, features, f"codes/{number}")

    def _seeing(self, number: int) -> tuple[Tensor, dict]:
        scenes = drawn(f"seeing/{number}", self.settings.pictures, self.settings.seed)
        wanted = torch.stack([attributes(one) for one in scenes])
        with self._half():
            seen, inner, features = see(self.vision, pixels(scenes))
            named = self.heads.loss(seen, inner, scenes, wanted)
        known = [one.kind not in CROWDS for one in scenes]
        far = self._distance(features[known], wanted[known])
        return named + far, {"named": round(named.item(), 4), "distance": round(far.item(), 4)}

    def _half(self) -> torch.autocast:
        """The tower in bfloat16, where the model is."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.reader.backbone.embedding.dtype == torch.bfloat16)

    def _distance(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Squared distance of features from the codes, as a share of the codes' own size."""
        codes = wanted.float() @ self.codes.detach()
        return (features.float() - codes).square().mean() / codes.square().mean()

    def _answers(self, number: int) -> tuple[Tensor, dict]:
        scenes = drawn(f"answers/{number}", self.settings.answers, self.settings.seed)
        with self._half():
            *_, features = see(self.vision, pixels(scenes))
        far = self._distance(features, torch.stack([attributes(one) for one in scenes]))
        loss, figures = self._answered(scenes, features.flatten(0, 1), f"answers/{number}")
        return loss + 0.3 * far, figures | {"distance": round(far.item(), 4)}

    def _answered(self, scenes: list[Scene], features: Tensor, seed: str) -> tuple[Tensor, dict]:
        sequences = [self.reader.sequence(one, f"{seed}/{i}") for i, one in enumerate(scenes)]
        return self.reader.loss(sequences, features, self.lora, random.Random(seed))

    def export(self, folder: Path) -> int:
        """Write the checkpoint's files; how many bytes they have together."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.vision.named_parameters():
            if parameter.dim() == 1:
                tensors[f"encoder.{name}"] = parameter.detach().half()
                continue
            rows, scale = quantise_rows(parameter.detach().flatten(1))
            tensors[f"encoder.{name}"] = rows.view(parameter.shape).contiguous()
            tensors[f"encoder.{name}.scale"] = scale.float().contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "vision.safetensors")
        tower = {key: value for key, value in asdict(TOWER).items() if key in _TOWER_KEYS}
        config = {
            "model_type": "nemodiff_vision",
            "base": BASE,
            "adapter": DEFAULT,
            "vision_config": {_TOWER_KEYS[key]: value for key, value in tower.items()},
            "spatial_merge_size": TOWER.merge_size,
            "projector_hidden_act": TOWER.projector_act,
            "image_token_id": IMAGE,
            "image_break_token_id": BREAK,
            "image_end_token_id": END,
            "trained": {
                name: {
                    "steps": self.steps[name] + self.before[name]["steps"],
                    "minutes": round(self.seconds[name] / 60 + self.before[name]["minutes"], 1),
                }
                for name in STEPS
            },
        }
        export_adapter(self.lora, folder, config)
        return sum((folder / name).stat().st_size for name in ("vision.safetensors", "adapter.safetensors"))


def train(settings: Settings, folder: Path, *, resume: bool = False) -> None:
    """Run the training, with `resume` from the state in `settings.out`, and export to a folder."""
    run_together(_work, settings.workers, Path(settings.out), settings, folder, resume)


def _work(worker: int, settings: Settings, folder: Path, resume: bool) -> None:
    run = Run(settings, resume=resume, worker=worker)
    run.train()
    if not worker:
        print(f"{folder} ({run.export(folder) / 1e6:.1f} MB)")


def _adam(*groups: tuple[float, list[nn.Parameter]]) -> torch.optim.Optimizer:
    named = [{"params": parameters, "lr": rate} for rate, parameters in groups]
    return torch.optim.AdamW(named, betas=(0.9, 0.98), weight_decay=0.0)


def _muon(rate: float, matrices: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Muon, at the rates of AdamW: on two cores it learns more in the same minutes."""
    return torch.optim.Muon(matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")


_TOWER_KEYS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
    "image_size": "image_size",
    "hidden_act": "hidden_act",
    "rope_theta": "rope_theta",
}
