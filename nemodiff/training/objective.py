"""The joint loss L = L_AR + alpha · L_diffusion over one packed batch, with the head restricted to the words that
occur."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nemodiff.training.data import Batch
from nemodiff.training.dual_stream import Backbone, final_norm, forward, fused
from nemodiff.training.lora import Lora

# Upper ends of the buckets of draft distances: 1, 2, 3-4, 5-8, 9+.
BUCKETS = (1, 2, 4, 8, 10**6)
BUCKET_NAMES = ("1", "2", "3-4", "5-8", "9+")


@dataclass
class Figures:
    """Sums over a batch, to be added over workers: [ar loss, its weight, diffusion loss, its weight, hits a bucket,
    counts a bucket]."""

    sums: Tensor

    @staticmethod
    def size() -> int:
        return 4 + 2 * len(BUCKETS)

    def as_dict(self) -> dict:
        """Mean losses (nats per token) and the draft hit rate a distance."""
        ar, ar_weight, diffusion, diffusion_weight, *rest = self.sums.tolist()
        hits, counts = rest[: len(BUCKETS)], rest[len(BUCKETS) :]
        rates = {
            name: round(hit / max(count, 1), 4) for name, hit, count in zip(BUCKET_NAMES, hits, counts, strict=True)
        }
        return {
            "ar_loss": round(ar / max(ar_weight, 1e-9), 4),
            "diffusion_loss": round(diffusion / max(diffusion_weight, 1e-9), 4),
            "hit_rate": rates,
            "targets": int(sum(counts)),
        }


@fused
def _probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """softmax of logits [rows, words] in their dtype, log of its denominator [rows], logit of the label [rows], both
    fp32."""
    wide = logits.float()
    log_z = torch.logsumexp(wide, -1)
    return torch.exp(wide - log_z[:, None]).to(logits.dtype), log_z, wide.gather(1, labels[:, None])[:, 0]


@fused
def _mixed_cross_entropy(
    logits: Tensor, p: Tensor, labels: Tensor, soft: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For logits [rows, words] and target `soft` · p + (1 - soft) · one-hot: the gradient times `scale` without its
    one-hot part (in the logits' dtype), cross-entropy to p [rows], cross-entropy to the label [rows], and the most
    probable word [rows]."""
    wide, target = logits.float(), p.float()
    log_z = torch.logsumexp(wide, -1)
    grad = (torch.exp(wide - log_z[:, None]) - target * soft[:, None]) * scale[:, None]
    cross = log_z * target.sum(-1) - (target * wide).sum(-1)
    return grad.to(logits.dtype), cross, log_z - wide.gather(1, labels[:, None])[:, 0], wide.argmax(-1)


class _JointLoss(torch.autograd.Function):
    """Both cross-entropies and their gradients in one go, so that no vocabulary-sized tensor outlives the forward."""

    @staticmethod
    def forward(
        ctx: Any, clean: Tensor, noisy: Tensor, head: Tensor, teacher: Tensor | None, batch: Batch, alpha: float
    ) -> tuple[Tensor, Tensor]:
        # Clean stream: the data's token; for chat the frozen base's distribution (its cross-entropy is KL plus a
        # constant).
        labels, weights = batch.clean_labels.clamp_min(0), batch.clean_weights
        p, log_z, logit = _probabilities(clean @ head.t(), labels)
        ar_weight = weights.sum().clamp_min(1e-6)
        scale = weights / ar_weight
        one_hot = batch.teacher < 0
        loss = log_z - logit
        grad = p * scale[:, None].to(p.dtype)
        rows = one_hot.nonzero()[:, 0]
        grad[rows, labels[rows]] -= scale[rows].to(p.dtype)
        if teacher is not None:
            rows = (~one_hot).nonzero()[:, 0]
            loss[rows] = -(teacher * torch.log(p[rows].float().clamp_min(1e-30))).sum(-1)
            grad[rows] -= (teacher * scale[rows, None]).to(p.dtype)
        ar = (weights * loss).sum()
        grad_clean = grad @ head

        # Noisy stream: half the data's token, half what the clean stream predicts there.
        labels, weights = batch.noisy_labels.clamp_min(0), batch.noisy_weights
        soft = (batch.noisy_clean >= 0).float() * 0.5
        diffusion_weight = weights.sum().clamp_min(1e-6)
        scale = alpha * weights / diffusion_weight
        chosen = p[batch.noisy_clean.clamp_min(0)]
        grad, cross, one_hot_loss, best = _mixed_cross_entropy(noisy @ head.t(), chosen, labels, soft, scale)
        grad[torch.arange(len(labels), device=labels.device), labels] -= ((1.0 - soft) * scale).to(grad.dtype)
        diffusion = (weights * (soft * cross + (1.0 - soft) * one_hot_loss)).sum()
        grad_noisy = grad @ head
        ctx.save_for_backward(grad_clean, grad_noisy)

        # A draft hits if it is the data's token; pads and tokens without a label are not counted.
        counted = (batch.noisy_weights > 0) & (batch.noisy_clean >= 0)
        hit = ((best == batch.noisy_labels) & counted).float()
        bucket = torch.bucketize(batch.distances, torch.tensor(BUCKETS, device=labels.device))
        hits = torch.zeros(len(BUCKETS), device=labels.device).index_add_(0, bucket, hit)
        counts = torch.zeros(len(BUCKETS), device=labels.device).index_add_(0, bucket, counted.float())
        figures = torch.cat((torch.stack((ar, ar_weight, diffusion, diffusion_weight)), hits, counts))
        ctx.mark_non_differentiable(figures)
        return ar / ar_weight + alpha * diffusion / diffusion_weight, figures

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_clean, grad_noisy = ctx.saved_tensors
        return grad_clean * grad, grad_noisy * grad, None, None, None, None


@torch.no_grad()
def base_distribution(backbone: Backbone, batch: Batch, head: Tensor) -> Tensor:
    """The frozen base's distribution [rows with a teacher, restricted vocabulary] over the chat of a batch, fp32."""
    if batch.base_stream is None:
        raise ValueError("this batch has no chat")
    hidden = forward(backbone, batch.base_stream)
    rows = batch.teacher[batch.teacher >= 0]
    return torch.softmax((final_norm(backbone, hidden[rows]) @ head.t()).float(), -1)


def joint_loss(
    backbone: Backbone, lora: Lora, batch: Batch, head: Tensor, *, alpha: float = 1.0
) -> tuple[Tensor, Figures]:
    """Scalar loss of a batch, with its figures; `head` [restricted vocabulary, hidden] are the rows of the head that
    may be predicted."""
    teacher = batch.taught
    if teacher is None and batch.base_stream is not None:
        teacher = base_distribution(backbone, batch, head)
    hidden = forward(backbone, batch.stream, lora)
    return loss_of(backbone, hidden, batch, head, teacher, alpha=alpha)


def loss_of(
    backbone: Backbone, hidden: Tensor, batch: Batch, head: Tensor, teacher: Tensor | None = None, *, alpha: float = 1.0
) -> tuple[Tensor, Figures]:
    """The loss and its figures from the hidden states of a batch's stream."""
    rows = torch.cat((batch.clean_rows, batch.noisy_rows))
    chosen = final_norm(backbone, hidden[rows])
    clean, noisy = chosen.split([len(batch.clean_rows), len(batch.noisy_rows)])
    loss, figures = _JointLoss.apply(clean, noisy, head, teacher, batch, alpha)
    return loss, Figures(figures)
