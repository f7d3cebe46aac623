"""Pruning and quantisation of weights: the one definition, in float32, that every target stores the results of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def prune(weight: Array, sparsity: float, pattern: str | None) -> Array:
    """A float32 copy with its smallest magnitudes zero: a share of the whole tensor, or all but n of every m ("n:m").

    Of equal magnitudes the one at the lower position goes first.
    """
    weight = np.asarray(weight, dtype=np.float32)
    if pattern is not None:
        return _prune_groups(weight, *(int(part) for part in pattern.split(":")))
    count = math.floor(sparsity * weight.size)
    if count == 0:
        return weight.copy()
    magnitudes = np.abs(weight).ravel()
    limit = np.partition(magnitudes, count - 1)[count - 1]
    drop = magnitudes < limit
    ties = np.flatnonzero(magnitudes == limit)
    drop[ties[: count - np.count_nonzero(drop)]] = True
    return np.where(drop.reshape(weight.shape), np.float32(0), weight)


def _prune_groups(weight: Array, keep: int, size: int) -> Array:
    groups = weight.reshape(-1, size)
    order = np.argsort(np.abs(groups), axis=-1, kind="stable")
    pruned = groups.copy()
    np.put_along_axis(pruned, order[:, : size - keep], np.float32(0), axis=-1)
    return pruned.reshape(weight.shape)


def quantize(weight: Array, bits: int, group: int | None) -> tuple[Array, Array]:
    """Whole numbers (int8) and float32 scales, symmetric about zero.

    The scales are [rows, 1, ...], or [rows, columns / group] with a scale for every `group` numbers of the last axis.
    """
    assert 2 <= bits <= 8, "more than 8 bits do not fit what is stored"
    weight = np.asarray(weight, dtype=np.float32)
    highest = np.float32(2 ** (bits - 1) - 1)
    if group is None:
        blocks = weight.reshape(weight.shape[0], -1)
        shape: tuple[int, ...] = (weight.shape[0], *(1,) * (weight.ndim - 1))
    else:
        blocks = weight.reshape(-1, group)
        shape = (weight.shape[0], weight.shape[1] // group)
    scale = np.max(np.abs(blocks), axis=1, keepdims=True) / highest
    scale[scale == 0] = 1
    q = np.clip(np.rint(blocks / scale), -highest, highest).astype(np.int8)
    return q.reshape(weight.shape), scale.reshape(shape)


def dequantize(q: Array, scale: Array) -> Array:
    """The float32 weight that whole numbers and scales stand for."""
    if scale.shape[-1] not in (1, q.shape[-1]):
        scale = np.repeat(scale, q.shape[-1] // scale.shape[-1], axis=-1)
    return q.astype(np.float32) * scale
