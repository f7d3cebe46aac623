"""Attention and rotary positions in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.ir import masks
from tfdsl.ir.op import Attributes

Array = npt.NDArray[Any]


def attend(
    a: Attributes,
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    allowed: Array | None,
    sinks: Array | None,
    *operands: Array,
) -> Array:
    """Attention of q [b, h, s, d] over k [b, g, t, d] and v [b, g, t, e], as [b, h, s, e]; h is a multiple of g."""
    share = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, share, axis=1), np.repeat(v, share, axis=1)
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * (1 / math.sqrt(q.shape[-1]) if a.scale is None else a.scale)
    if a.softcap is not None:
        scores = a.softcap * np.tanh(scores / a.softcap)
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if a.mask is not None:
        scores = np.where(_visible(a.mask, scores.shape, a.offset, operands), scores, -np.inf)
    return np.matmul(_attention_weights(scores, sinks), v)


def _visible(mask: masks.Mask, shape: tuple[int, ...], offset: int, operands: tuple[Array, ...]) -> Array:
    """What a mask allows, as booleans that broadcast to scores [b, h, s, t]."""
    batch, _, queries, keys = shape

    def term(each: masks.Term, q: Array, k: Array) -> Array:
        assert each.operand is not None
        if each.kind == "prefix":
            return k < operands[each.operand][:, None, None, None]
        data = np.broadcast_to(operands[each.operand], (batch, keys))[:, None, :]
        if each.kind == "padding":
            return data[:, :, None, :]
        return data[:, :, offset : offset + queries, None] == data[:, :, None, :]  # documents

    return masks.evaluate(mask, np.arange(queries)[:, None] + offset, np.arange(keys)[None, :], term)


def _attention_weights(scores: Array, sinks: Array | None) -> Array:
    """Softmax over the last axis; a sink adds to the denominator only, and a row that sees nothing is all zeros."""
    highest = np.max(scores, axis=-1, keepdims=True)
    sink = None if sinks is None else sinks[None, :, None, None]
    if sink is not None:
        highest = np.maximum(highest, sink)
    highest = np.where(highest == -np.inf, 0.0, highest)
    raised = np.exp(scores - highest)
    total = raised.sum(axis=-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - highest)
    return raised / np.where(total == 0, 1.0, total)


def linear_attend(a: Attributes, q: Array, k: Array, v: Array, decay: Array | None) -> Array:
    """The running sum of outer(k, v), which decays from step to step, read by q: step by step."""
    return running_attend(q, k, v, decay, None)[0]


def running_attend(q: Array, k: Array, v: Array, decay: Array | None, state: Array | None) -> tuple[Array, Array]:
    """`linear_attend` from a state [b, h, d, e] on (zeros, if None), and the state after it."""
    heads = max(each.shape[1] for each in (q, k, v))
    q, k, v = (np.repeat(each, heads // each.shape[1], axis=1) for each in (q, k, v))
    decay = np.zeros(()) if decay is None else decay
    # What is kept of each step [b, h, s, d] or of all its features [b, h, s, 1].
    by_feature = decay.ndim == 4
    keep = np.exp(np.broadcast_to(decay, q.shape) if by_feature else np.broadcast_to(decay, q.shape[:3])[..., None])
    if state is None:
        state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]))
    y = np.empty(v.shape)
    for step in range(q.shape[2]):
        state = keep[:, :, step, :, None] * state + k[:, :, step, :, None] * v[:, :, step, None, :]
        y[:, :, step] = np.einsum("bhd,bhde->bhe", q[:, :, step], state)
    return y, state


def rotate(a: Attributes, x: Array, cos: Array, sin: Array) -> Array:
    """Rotate pairs of features of x [batch, ..., positions, features] by angles [[batch,] positions, half]."""
    half = cos.shape[-1]
    if cos.ndim == 3:
        between = (1,) * (x.ndim - 3)
        cos, sin = (each.reshape(each.shape[0], *between, *each.shape[1:]) for each in (cos, sin))
    first = slice(0, 2 * half, 2) if a.interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if a.interleaved else slice(half, 2 * half)
    turned = x.copy()
    turned[..., first] = x[..., first] * cos - x[..., second] * sin
    turned[..., second] = x[..., second] * cos + x[..., first] * sin
    return turned
