"""Part c: what forwards cost in the released shapes, with random weights, beside what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nemodiff.bench.shape import SHAPES, Costs, measure
from nemodiff.model.memory import shortage
from nemodiff.model.transformer import Transformer
from tools.first_light.report import Findings
from tools.first_light.where import Where


@dataclass(frozen=True)
class Target:
    """What one H100 should reach. value: of the costs of a shape. least: the value must be at least `bound`, else at
    most."""

    name: str
    bound: float
    least: bool
    unit: str = ""

    def of(self, costs: Costs) -> float:
        """What was measured."""
        rows = costs.by_rows
        return {
            "AR's share of the bandwidth limit": costs.ar / costs.limit,
            "a 32-row forward ÷ a 1-row one": rows[32] / rows[1],
            "a 64-row forward ÷ a 1-row one": rows[64] / rows[1],
            "tracing's share of a forward": costs.tracing / costs.token,
            "AR ÷ transformers' eager generate": costs.ar / costs.transformers,
        }[self.name]

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


TARGETS = (
    Target("AR's share of the bandwidth limit", 0.80, True),
    Target("a 32-row forward ÷ a 1-row one", 1.20, False),
    Target("a 64-row forward ÷ a 1-row one", 1.35, False),
    Target("tracing's share of a forward", 0.05, False),
    Target("AR ÷ transformers' eager generate", 2.5, True),
)


def speed(found: Findings, where: Where) -> None:
    """Part c for the 3B and the 8B; every measured figure beside its target."""
    device = torch.device(where.device)
    kind = torch.float32 if where.rehearsal else torch.bfloat16
    new_tokens, context = (8, 40) if where.rehearsal else (128, 512)
    for name in ("tiny",) if where.rehearsal else ("3B", "8B"):
        config = SHAPES[name].config()
        count = sum(parameter.numel() for parameter in Transformer(config, "meta").parameters())
        if reason := shortage(count * kind.itemsize, device, config=config):
            found.notes.append(f"The {name} shape does not fit: {reason}.")
            continue
        try:
            costs = measure(config, device, kind, 32, new_tokens, context, "auto", found.notes.append)
        except Exception as error:  # noqa: BLE001 - the other shape may fit
            found.notes.append(f"The {name} shape was not measured: {type(error).__name__}: {error}")
            where.free()
            continue
        for target in TARGETS:
            value = target.of(costs)
            found.rows.append(
                {
                    "shape": name,
                    "what": target.name,
                    "measured": value,
                    "target on one H100": f"{'≥' if target.least else '≤'} {target.bound:g}",
                    "met": target.met(value),
                }
            )
        forwards = ", ".join(f"{rows} rows {ms:.2f} ms" for rows, ms in costs.by_rows.items())
        found.notes.append(
            f"{name}: {costs.attention}; AR {costs.ar:.1f} tokens/s of {costs.limit:.1f} that "
            f"{max(costs.copies, costs.reads) / 1e9:.0f} GB/s allow; transformers' generate "
            f"{costs.transformers:.1f} tokens/s; causal forwards: {forwards}; a draft of 32 with LoRA "
            f"{costs.draft:.2f} ms, without {costs.denoise:.2f} ms; tracing {costs.tracing:.3f} ms per forward."
        )
        where.free()
