"""The released decoding, as slowly as possible."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.helpers.official import (
    ALPHA,
    END_THINK,
    EOS,
    MASK,
    RANK,
    draft_lora,
    random_ministral,
)

#: The mask is never the best guess here, as in a trained model; EOS and </think> come often enough to matter.
FREQUENT = {MASK: 0.0, EOS: 1.3, END_THINK: 1.2}


class Released:
    """The released decoding (card and paper), as slowly as possible: no cache, the whole sequence every forward."""

    def __init__(self, lora: bool) -> None:
        reference = random_ministral(frequent=FREQUENT)
        self.encoder, self.head = reference.model, reference.lm_head
        self.factors = draft_lora() if lora else {}
        self.block_start: int | None = None
        for index, layer in enumerate(self.encoder.layers):
            layer.self_attn.o_proj.register_forward_hook(self._hook(index))

    def _hook(self, index: int):
        def add(_module, inputs, output):
            if self.block_start is None or not self.factors:
                return output
            stem = f"base_model.model.encoder.layers.{index}.self_attn.o_proj.lora_"
            a, b = self.factors[f"{stem}A.weight"], self.factors[f"{stem}B.weight"]
            update = F.linear(F.linear(inputs[0], a), b) * (ALPHA / RANK)
            update[:, : self.block_start] = 0  # what came before was run without the adapter
            return output + update

        return add

    @torch.no_grad()
    def logits(self, ids: list[int], bidirectional_from: int | None = None, adapter: bool = False) -> torch.Tensor:
        """[len(ids), vocabulary]: causal, but for a last block in which all positions see each other."""
        sees = torch.ones(len(ids), len(ids)).tril().bool()
        if bidirectional_from is not None:
            sees[bidirectional_from:, bidirectional_from:] = True
        self.block_start = bidirectional_from if adapter else None
        hidden = self.encoder(torch.tensor(ids)[None], attention_mask=sees[None, None]).last_hidden_state
        self.block_start = None
        return self.head(hidden)[0].float()

    def guess(
        self, ids: list[int], start: int, adapter: bool = False, barred: int | None = None
    ) -> tuple[list[int], list[float]]:
        """Tokens and probabilities of a bidirectional block; the mask is never a token, nor </think> at `barred`."""
        logits = self.logits(ids, start, adapter)[start:]
        probabilities = logits.softmax(-1)
        logits[:, MASK] = -torch.inf
        if barred is not None:
            logits[barred, END_THINK] = -torch.inf
        tokens = logits.argmax(-1)
        return tokens.tolist(), probabilities[range(len(tokens)), tokens].tolist()

    def ar_token(self, prompt: list[int], answer: list[int], budget: int | None) -> int:
        if budget is not None and len(answer) == budget and END_THINK not in answer:
            return END_THINK
        return int(self.logits(prompt + answer)[-1].argmax())

    def ar(self, prompt, count, eos, budget):
        answer = []
        while len(answer) < count and not (answer and answer[-1] in eos):
            answer.append(self.ar_token(prompt, answer, budget))
        return answer, len(answer)

    def diffusion(self, prompt, count, eos, budget, length, threshold=None, steps=None):
        answer, nfe = [], 0
        while True:
            block = [self.ar_token(prompt, answer, budget)] + [MASK] * (length - 1)
            if len(answer) + 1 >= count and block[0] not in eos:
                return answer + block[:1], nfe
            forced, barred = None, None
            if budget is not None and END_THINK not in answer + block and 0 < budget - len(answer) < length:
                forced = budget - len(answer)
                block[forced] = END_THINK
            masks, step = block.count(MASK), 0
            while MASK in block:
                tokens, confidence = self.guess(prompt + answer + block, len(prompt) + len(answer), barred=barred)
                nfe += 1
                order = sorted((i for i in range(length) if block[i] == MASK), key=lambda i: -confidence[i])
                if steps is None:
                    commit = [i for i in order if i == order[0] or confidence[i] >= threshold]
                else:
                    commit = order[: max(1, masks // steps + (step < masks % steps))]
                for i in commit:
                    block[i] = tokens[i]
                step += 1
                if forced and END_THINK in block[1:forced]:  # it came by itself: the forced one is taken back
                    block[forced] = MASK
                    forced, barred = None, forced
                head = block[: block.index(MASK)] if MASK in block else block
                if any(token in eos for token in head) or len(answer) + len(head) >= count:
                    break
            nfe += 1  # the refresh
            for token in block[: block.index(MASK)] if MASK in block else block:
                answer.append(token)
                if token in eos or len(answer) == count:
                    return answer, nfe

    def linear(self, prompt, count, eos, budget, length):
        answer, nfe = [self.ar_token(prompt, [], budget)], 1
        while answer[-1] not in eos and len(answer) < count:
            known = prompt + answer[:-1]
            drafted, _ = self.guess(known + answer[-1:] + [MASK] * (length - 1), len(known), adapter=True)
            nfe += 2
            for draft in [*drafted[1:], None]:
                answer.append(self.ar_token(prompt, answer, budget))
                if answer[-1] != draft or answer[-1] in eos or len(answer) == count:
                    break
        return answer, nfe
