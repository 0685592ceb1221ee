"""What one forward needs, as structures in memory that Python fills and the compiled kernels read.

Every field is an int64 (a count or an address) or a float32. Addresses point into tensors that the `CpuModel` and the
cache of the run hold for as long as a forward can use them. Sizes that are called padded are multiples of `PADDING`;
what lies in the padding is zero.
"""

from __future__ import annotations

import ctypes
import sys

#: Inputs of every product are padded to a multiple of this, which the widest tile takes in one step.
PADDING = 64
#: Inputs that are multiplied into one int32: 2048 · 127 · 8191 < 2^31. Wider rows are summed in parts.
SEGMENT = 2048
#: Largest magnitude of a quantised activation (14 bits) and of a quantised weight.
ACTIVATION_PEAK, WEIGHT_PEAK = 8191, 127
#: Rows that one unit of work takes through a product, which bounds a thread's scratch.
ROW_CHUNK = 64
#: Outputs of the head whose largest logit and sum of exponentials are found together.
HEAD_CHUNK = 256
#: Bytes between counters of two steps, so that no two share a line of the processor's cache.
COUNTER_BYTES = 64
#: What a row sees of the rows of its own forward.
ALL, CAUSAL, LISTED = 0, 1, 2


class KernelsUnavailable(Exception):
    """The kernels cannot run here; the text says why, in a clause that fits behind "because"."""


def say(line: str) -> None:
    """A line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def _fields(names: str, kind: type = ctypes.c_int64) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class MatrixPlan(ctypes.Structure):
    """A packed weight: panels of `Plan.panel` outputs, in each for every `Tile.together` inputs the outputs' int8.

    scales: float32 an output. outputs, inputs: padded.
    """

    _fields_ = _fields("weights scales outputs inputs")


class LayerPlan(ctypes.Structure):
    """One layer. norms: float32 [hidden]. lora_a.weights is 0 where there is no draft LoRA.

    gate_up: its panels alternate, one of gate and one of up.
    """

    _fields_ = [
        *[(name, MatrixPlan) for name in ("qkv", "o", "gate_up", "down", "lora_a", "lora_b")],
        *_fields("input_norm post_norm"),
    ]


class HeadPlan(ctypes.Structure):
    """A draft head and one group of masks. Sizes are padded to whole vectors.

    The head: components, width, rank: its sizes. table [vocabulary, components], before [vocabulary, width], pair and
    candidate [vocabulary, rank]: bfloat16. around [width / 16, 5 * components, 16], out [rank / 16, width, 16],
    distance [distances, width], figures [5, width]: float32. scale: of weights; floor: of log shares; most: a weight
    at most.

    The group: tokens int64 and log_shares float32 [1 + places, candidates], older and newest, as `WeighsDrafts.drafts`
    takes them. own_tokens int64, own_plain and own_shares float32 [places, candidates]: what is weighed, as `Drawn` has
    it; colder: one over the temperature. best_tokens int64 and best_shares float32 [places, parents, count]: what it
    gives; of the first place only the first parent's.

    Buffers, float32: said [1 + places, components], around_rows [places, 5 * components], place_rows [places, width],
    hidden [parents, width], pairs [parents, rank], weighed [row].
    """

    _fields_ = [
        *_fields("components width rank distances row"),
        *_fields("table before pair candidate around out distance figures"),
        *_fields("scale floor most colder", ctypes.c_float),
        *_fields("places parents candidates count tokens log_shares own_tokens own_plain own_shares"),
        *_fields("older newest best_tokens best_shares"),
        *_fields("said around_rows place_rows hidden pairs weighed"),
    ]


class Plan(ctypes.Structure):
    """A model and one forward of it.

    The model: layer_table: LayerPlans. hidden, attention, inner, rank: padded widths. half: padded half of a head;
    a head is two of them. embeddings: bfloat16 [vocabulary, hidden]. mask, mask_embedding: float32 [hidden] that
    stands in for the embedding of token `mask`, or 0. tile_rows, tile_queries: the most of one call of a tile.
    planes: whether quantised rows are two planes of int8 (see `write_steps`).

    The forward: tokens: int64 [rows], or 0 where x holds embeddings. positions: int64 [rows] into the tables cosines,
    sines [positions, half] and query_scales [positions] (float32). start: kept length; cache_keys [layers, kv_heads,
    capacity / 16, head, 16] and cache_values [layers, kv_heads, capacity, head]. sees: ALL, CAUSAL or LISTED, then
    seen_counts int32 [rows] and seen int32 [rows, rows] list the forward's rows that a row sees. Rows from `plain` on
    run with the draft LoRA if `adapter`. Logits are computed of head_rows rows from head_first on: logits float32
    [head_rows, vocabulary padded]; of each the logarithm of the sum of exponentials (float32)
    and the `few` best (tokens int64, logits float32). From row banned_first on (counted from
    the forward's first) the token `banned` is never proposed.

    Buffers: x float32, steps (16 bits each) and step_scales float32 (quantised rows), queries, mixed, inner, low
    float32. scratch: scratch_bytes per thread. times: 0, or int64 [steps + 1] for the
    clock at the beginning and at the end of each step. chunk_peaks, chunk_sums: float32 [head_rows, chunks].
    """

    _fields_ = [
        *_fields("layer_table layers hidden heads kv_heads half attention inner rank vocabulary"),
        *_fields("embeddings mask mask_embedding norm panel tile_rows tile_queries planes"),
        ("head", MatrixPlan),
        *_fields("width eps query_factor", ctypes.c_float),
        ("unused", ctypes.c_float),
        *_fields("rows tokens positions cosines sines query_scales start capacity cache_keys cache_values"),
        *_fields("sees seen_counts seen adapter plain head_first head_rows logits logits_row"),
        *_fields("log_sums few few_tokens few_logits banned banned_first"),
        *_fields("x steps step_scales queries mixed inner_rows low identity scratch scratch_bytes"),
        *_fields("chunk_peaks chunk_sums counters threads times"),
    ]
