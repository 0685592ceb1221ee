"""What a sweep varies: axes, and the settings of decoding that they come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemodiff.request import MAX_QUADRATIC_LENGTH, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One setting that a sweep measures; None of what its mode does not use, or leaves to the checkpoint."""

    mode: str
    block_length: int | None = None
    threshold: float | None = None
    sampler: str | None = None
    order: str | None = None
    draft: str | None = None
    rows: int | None = None
    temperature: float = 0.0

    def request(self, prompt: str, max_new_tokens: int, seed: int = 0) -> Request:
        """Raises RequestError when there is no such setting."""
        return Request(
            prompt=prompt,
            modes=(self.mode,),
            block_length=self.block_length,
            threshold=self.threshold,
            sampler=self.sampler or "confidence",
            order=self.order,
            draft=self.draft or "linear",
            rows=self.rows,
            temperature=self.temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            alternatives=0,
        )

    @property
    def words(self) -> str:
        """What is special of it: tree, 24 rows; block 8, threshold 0.9, trained sampler."""
        parts = [self.draft or ""]
        parts.append(f"block {self.block_length}" if self.block_length else "")
        parts.append(f"{self.rows} rows" if self.rows else "")
        parts.append(f"threshold {self.threshold:g}" if self.threshold is not None else "")
        parts.append(f"{self.sampler} sampler" if self.sampler not in (None, "confidence") else "")
        parts.append(f"{self.order} first" if self.order else "")
        parts.append(f"temperature {self.temperature:g}" if self.temperature else "")
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What is varied, each value once. An order or a number of rows of None is the checkpoint's, or the engine's, own.

    samplers and orders are diffusion's, drafts and rows self-speculation's. Thresholds are of the samplers that have
    one, block lengths of diffusion and of drafts that fill a block.
    """

    block_lengths: tuple[int, ...]
    thresholds: tuple[float, ...]
    samplers: tuple[str, ...] = ("confidence",)
    orders: tuple[str | None, ...] = (None,)
    drafts: tuple[str, ...] = ("linear",)
    rows: tuple[int | None, ...] = (None,)
    temperatures: tuple[float, ...] = (0.0,)

    def variants(self) -> list[Variant]:
        """AR at every temperature first, since the others are held against it, then diffusion, self-speculation."""
        return [
            *(Variant(mode="ar", temperature=temperature) for temperature in self.temperatures),
            *(one for temperature in self.temperatures for one in self._diffusion(temperature)),
            *(one for temperature in self.temperatures for one in self._speculation(temperature)),
        ]

    def _diffusion(self, temperature: float) -> Iterator[Variant]:
        for sampler in self.samplers:
            thresholds: tuple[float | None, ...] = self.thresholds if sampler in ("confidence", "trained") else (None,)
            for order in self.orders:
                for length in self.block_lengths:
                    for threshold in thresholds:
                        yield Variant(
                            mode="diffusion",
                            block_length=length,
                            threshold=threshold,
                            sampler=sampler,
                            order=order,
                            temperature=temperature,
                        )

    def _speculation(self, temperature: float) -> Iterator[Variant]:
        common = {"mode": "self-speculation", "temperature": temperature}
        for draft in self.drafts:
            if draft == "tree":
                yield from (Variant(draft=draft, rows=rows, **common) for rows in self.rows)  # type: ignore[arg-type]
                continue
            for length in self.block_lengths:
                if draft != "quadratic" or length <= MAX_QUADRATIC_LENGTH:
                    yield Variant(draft=draft, block_length=length, **common)  # type: ignore[arg-type]
