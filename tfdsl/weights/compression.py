"""Pruning and quantisation of weights: the one definition, in float32, that every target stores the results of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_AT_ONCE = 1 << 22  # numbers that are in the works together, so that a large tensor needs little more than its result


def prune(weight: Array, sparsity: float, pattern: str | None) -> Array:
    """A float32 copy with its smallest magnitudes zero: a share of the whole tensor, or all but n of every m ("n:m").

    Of equal magnitudes the one at the lower position goes first.
    """
    pruned = np.array(weight, dtype=np.float32)
    flat = pruned.reshape(-1)
    if pattern is not None:
        _prune_groups(flat, *(int(part) for part in pattern.split(":")))
        return pruned
    count = math.floor(sparsity * weight.size)
    if count == 0:
        return pruned
    magnitudes = np.abs(flat)
    magnitudes.partition(count - 1)
    limit = magnitudes[count - 1]
    ties = count - np.count_nonzero(magnitudes[:count] < limit)
    del magnitudes
    for part in _parts(flat, 1):
        found = np.flatnonzero(np.abs(part) == limit)[:ties]
        part[np.abs(part) < limit] = 0
        part[found] = 0
        ties -= len(found)
    return pruned


def _prune_groups(flat: Array, keep: int, size: int) -> None:
    for part in _parts(flat, size):
        groups = part.reshape(-1, size)
        order = np.argsort(np.abs(groups), axis=-1, kind="stable")
        np.put_along_axis(groups, order[:, : size - keep], np.float32(0), axis=-1)


def quantize(weight: Array, bits: int, group: int | None) -> tuple[Array, Array]:
    """Whole numbers (int8) and float32 scales, symmetric about zero.

    The scales are [rows, 1, ...], or [rows, columns / group] with a scale for every `group` numbers of the last axis.
    """
    assert 2 <= bits <= 8, "more than 8 bits do not fit what is stored"
    weight = np.asarray(weight, dtype=np.float32)
    highest = np.float32(2 ** (bits - 1) - 1)
    shape: tuple[int, ...] = (weight.shape[0], *(1,) * (weight.ndim - 1))
    if group is not None:
        shape = (weight.shape[0], weight.shape[1] // group)
    blocks = weight.reshape(math.prod(shape), -1)
    q, scale = np.empty(blocks.shape, np.int8), np.empty((len(blocks), 1), np.float32)
    rows = max(1, _AT_ONCE // max(1, blocks.shape[1]))
    for start in range(0, len(blocks), rows):
        part = slice(start, start + rows)
        scale[part] = np.max(np.abs(blocks[part]), axis=1, keepdims=True) / highest
        scale[part][scale[part] == 0] = 1
        q[part] = np.clip(np.rint(blocks[part] / scale[part]), -highest, highest)
    return q.reshape(weight.shape), scale.reshape(shape)


def _parts(flat: Array, size: int) -> Iterator[Array]:
    """Views of a vector that are short enough to compute with, each of a whole number of groups of a size."""
    step = _AT_ONCE - _AT_ONCE % size
    for start in range(0, len(flat), step):
        yield flat[start : start + step]


def dequantize(q: Array, scale: Array) -> Array:
    """The float32 weight that whole numbers and scales stand for."""
    if scale.shape[-1] not in (1, q.shape[-1]):
        scale = np.repeat(scale, q.shape[-1] // scale.shape[-1], axis=-1)
    return q.astype(np.float32) * scale
