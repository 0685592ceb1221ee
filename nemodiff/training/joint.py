"""Joint training of one low-rank update for all three modes: AR on the clean stream, block diffusion on noisy copies,
in one pass.

On a CPU two processes of one thread each average their gradients (faster than one process of two threads); with
`device="cuda"` one process runs alone. The GPU path uses the same code but has not been tried on one.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemodiff.checkpoints.catalogue import BASE
from nemodiff.engine.devices import DTYPES, training_dtype
from nemodiff.training.data import Batch, Mixture
from nemodiff.training.dual_stream import Backbone
from nemodiff.training.focus import family_weights, right_answers
from nemodiff.training.lora import Lora, export_adapter
from nemodiff.training.objective import Figures, base_distribution, joint_loss
from nemodiff.training.progress import log_figures, read_state, save_state
from nemodiff.training.watch import GROUPS, Watch, watched_prompts
from nemodiff.training.workers import add_up, average, run_together


@dataclass
class Settings:
    """What a run is made of; stored in its state. `minutes` is training time in all, resumed parts included: on a CPU
    that of worker 0's processor, so that what else the machine does takes none of it."""

    base: str
    out: str
    chat: str | None = None
    start: str | None = None  # folder of an adapter to go on from, in place of a fresh one
    minutes: float = 75.0
    rank: int = 64
    budget: int = 2400  # stream tokens per worker and step
    copies: int = 2
    learning_rate: float = 1e-3
    mask_learning_rate: float = 3e-3
    alpha: float = 0.5  # weight of the diffusion loss; the AR loss is a mean in which chat counts most
    warmup: int = 20
    workers: int = 2
    device: str = "cpu"
    dtype: str | None = None  # as torch names it; None: bfloat16 where the device has it in hardware, else float32
    seed: int = 0
    save_minutes: float = 3.0
    watch_minutes: float = 10.0  # how often acceptance on held-out prompts is measured; 0: never
    mask_token_id: int = 16


def rate(step: int, progress: float, warmup: int) -> float:
    """Factor of the learning rate: warm-up by steps, constant to half of the time, then linear down to 3 %."""
    ramp = min(1.0, (step + 1) / warmup)
    fall = 1.0 if progress < 0.5 else max(0.03, 1.0 - (progress - 0.5) / 0.5 * 0.97)
    return ramp * fall


def to_device(batch: Batch, device: str) -> Batch:
    """The batch with every tensor on `device`."""
    if device == "cpu":
        return batch
    for stream in (batch.stream, batch.base_stream):
        if stream is not None:
            stream.tokens, stream.positions, stream.masked = (
                t.to(device) for t in (stream.tokens, stream.positions, stream.masked)
            )
            for span in stream.spans:
                span.mask = span.mask.to(device)
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            setattr(batch, name, value.to(device))
    return batch


class Trainer:
    """One worker's run: model, update, optimiser, data; worker 0 also writes the log and the state."""

    def __init__(self, settings: Settings, worker: int = 0, state: dict | None = None):
        from transformers import AutoTokenizer

        from nemodiff.model.weights import load_model

        self.settings, self.worker = settings, worker
        self.dtype = DTYPES[settings.dtype or training_dtype(settings.device)]
        model = load_model(Path(settings.base), settings.device, self.dtype)
        self.backbone = Backbone.of(model)
        self.lora = Lora(
            self.backbone.layers, settings.rank, self.backbone.embedding.float().mean(0), seed=settings.seed
        )
        self.watch = Watch(Path(settings.base), model, self.lora, settings.mask_token_id)
        tokenizer = AutoTokenizer.from_pretrained(settings.base)
        self.data = Mixture(
            tokenizer,
            Path(settings.chat) if settings.chat else None,
            seed=settings.seed,
            mask_id=settings.mask_token_id,
        )
        vocabulary = state["vocabulary"] if state else self.data.vocabulary(self.backbone.head.shape[0])
        self.vocabulary = vocabulary
        self.restricted = torch.full((self.backbone.head.shape[0],), -1, dtype=torch.long)
        self.restricted[vocabulary] = torch.arange(len(vocabulary))
        self.head = self.backbone.head[vocabulary.to(settings.device)].contiguous()
        values = torch.nn.Parameter(self.lora.values)
        values.grad = self.lora.grads
        groups: list[dict[str, Any]] = [
            {"params": [values], "lr": settings.learning_rate},
            {"params": [self.lora.mask_embedding], "lr": settings.mask_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.rates = [group["lr"] for group in groups]
        self.step, self.tokens, self.targets, self.seconds = 0, 0, 0, 0.0
        if settings.start and not state:
            self.lora.load(Path(settings.start))
            self.data.weights = self.focus(tokenizer.eos_token_id)
        if state:
            self.lora.values.copy_(state["values"])
            self.lora.mask_embedding.data.copy_(state["mask_embedding"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.data.weights = state.get("weights", self.data.weights)
            self.step, self.tokens, self.targets, self.seconds = (
                state[name] for name in ("step", "tokens", "targets", "seconds")
            )
            self.lora.merge()

    @property
    def out(self) -> Path:
        return Path(self.settings.out)

    def focus(self, end_id: int) -> list[float]:
        """How often each family is drawn: those more often that AR still writes wrongly."""
        workers = self.settings.workers
        counts = right_answers(
            self.backbone,
            self.lora,
            self.data.structured,
            end_id,
            self.data.max_answer,
            worker=self.worker,
            workers=workers,
        )
        counts = add_up(counts, workers)
        if self.worker == 0:
            right, asked = counts.sum(1)
            print(f"before training {right / asked:.0%} of tasks are right", flush=True)
        return family_weights(counts)

    def average(self, figures: Tensor, elapsed: float, tokens: int) -> tuple[Tensor, float, int]:
        """Mean gradients over the workers; sums of figures and tokens; worker 0's clock, so that all see one
        schedule."""
        extra = torch.tensor([elapsed if self.worker == 0 else 0.0, float(tokens)])
        tail = add_up(torch.cat((figures.cpu(), extra)), self.settings.workers)
        average([self.lora.grads, self.lora.mask_grad], self.settings.workers)
        return tail[:-2], float(tail[-2]), int(tail[-1])

    def teach(self, batch: Batch) -> Tensor:
        """The frozen base's distribution over the chat of a batch, before noise is drawn for it."""
        return base_distribution(self.backbone, to_device(batch, self.settings.device), self.head)

    def train_step(self, batch: Batch, progress: float, elapsed: float) -> tuple[Figures, float, int]:
        """Forward, backward, averaging, clipping and the optimiser's step."""
        settings = self.settings
        self.lora.zero_grad()
        loss, figures = joint_loss(
            self.backbone, self.lora, to_device(batch, settings.device), self.head, alpha=settings.alpha
        )
        loss.backward()
        sums, elapsed, tokens = self.average(figures.sums, elapsed, len(batch.stream.tokens))
        norm = math.hypot(float(self.lora.grads.norm()), float(self.lora.mask_grad.norm()))
        if not math.isfinite(norm):
            return Figures(sums), elapsed, tokens  # a batch that overflowed is skipped, on all workers alike
        if norm > 1.0:
            self.lora.grads.div_(norm)
            self.lora.mask_grad.div_(norm)
        factor = rate(self.step, progress, settings.warmup)
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * factor
        self.optimizer.step()
        self.lora.merge()
        return Figures(sums), elapsed, tokens

    def acceptance(self) -> dict[str, float]:
        """Mean acceptance length on held-out prompts by group, measured by all workers together."""
        own = self.watch.measure(watched_prompts()[self.worker :: self.settings.workers])
        sums = add_up(own, self.settings.workers)
        return {
            group: round(float(new / cycles.clamp_min(1)), 3) for group, (new, cycles) in zip(GROUPS, sums, strict=True)
        }

    def save(self) -> None:
        """Write the state: see `save_state`."""
        state = {
            "settings": asdict(self.settings),
            "values": self.lora.values,
            "mask_embedding": self.lora.mask_embedding.detach(),
            "vocabulary": self.vocabulary,
            "weights": self.data.weights,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "targets": self.targets,
            "seconds": self.seconds,
        }
        save_state(self.out, state)

    def run(self) -> None:
        """Train until the time is up."""
        settings, total = self.settings, self.settings.minutes * 60.0
        self.out.mkdir(parents=True, exist_ok=True)
        clock = time.process_time if settings.device == "cpu" else time.monotonic
        before, started, saved = self.seconds, clock(), time.monotonic()
        watched = self.seconds // (settings.watch_minutes * 60) if self.step and settings.watch_minutes else -1
        while self.seconds < total:
            began = time.monotonic()
            batch = self.data.batch(
                self.step,
                self.worker,
                self.restricted,
                budget=settings.budget,
                copies=settings.copies,
                dtype=self.dtype,
                teach=self.teach,
            )
            figures, elapsed, tokens = self.train_step(batch, self.seconds / total, before + clock() - started)
            # Worker 0's clock decides for all, so that all stop at the same step.
            self.seconds = elapsed if elapsed > self.seconds else self.seconds + 1e-3
            self.step += 1
            self.tokens += tokens
            line = figures.as_dict()
            self.targets += line["targets"]
            speed = tokens / (time.monotonic() - began)
            every = settings.watch_minutes * 60
            # All see worker 0's clock, so that all measure after the same step.
            if every and (self.seconds // every > watched or self.seconds >= total):
                watched = self.seconds // every
                line["acceptance"] = self.acceptance()
            if self.worker == 0:
                line = {
                    "step": self.step,
                    "seconds": round(self.seconds, 1),
                    "tokens": self.tokens,
                    "tokens_per_second": round(speed, 1),
                    "rate": round(rate(self.step, self.seconds / total, settings.warmup), 4),
                    **line,
                }
                log_figures(self.out, line, lambda text: print(text, flush=True))
                if time.monotonic() - saved > settings.save_minutes * 60:
                    self.save()
                    saved = time.monotonic()
        if self.worker == 0:
            self.save()


def _work(worker: int, settings: Settings, resume: bool) -> None:
    Trainer(settings, worker, _resumed(settings) if resume else None).run()


def _resumed(settings: Settings) -> dict[str, Any] | None:
    path = Path(settings.out) / "state.pt"
    return read_state(path, rank=settings.rank) if path.exists() else None


def train(settings: Settings, *, resume: bool = False) -> None:
    """Run the training; with `resume` from the state in `settings.out`, where there is one. Raises RequestError for a
    state that is damaged or of another rank."""
    if settings.device != "cpu":
        settings.workers = 1
    run_together(_work, settings.workers, Path(settings.out), settings, resume)


def export(
    state_file: Path,
    folder: Path,
    *,
    block_length: int = 8,
    threshold: float = 0.9,
    order: str = "leftmost",
    draft: str = "tree",
) -> Path:
    """Turn a saved state into a shippable adapter folder: int8 factors with row scales, mask embedding,
    adapter_config.json with the defaults that decoding takes. What the run went on from is told as `before`. Raises
    RequestError for a damaged state."""
    from nemodiff.model.weights import load_model

    state = read_state(state_file)
    settings = Settings(**state["settings"])
    backbone = Backbone.of(load_model(Path(settings.base), "cpu", torch.bfloat16))
    lora = Lora(backbone.layers, settings.rank, state["mask_embedding"])
    lora.values.copy_(state["values"])
    before = None
    if settings.start:
        before = json.loads((Path(settings.start) / "adapter_config.json").read_text(encoding="utf-8")).get("trained")
    config = {
        "base": BASE,
        "mask_token_id": settings.mask_token_id,
        "shift_logits": True,
        "block_size": block_length,
        "threshold": threshold,
        "order": order,
        "draft": draft,
        "trained": {
            **({"before": before} if before else {}),
            "steps": state["step"],
            "tokens": state["tokens"],
            "diffusion_targets": state["targets"],
            "minutes": round(state["seconds"] / 60, 1),
            "seed": settings.seed,
            "workers": settings.workers,
            "budget": settings.budget,
            "learning_rate": settings.learning_rate,
        },
    }
    return export_adapter(lora, folder, config)
