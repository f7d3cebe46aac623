"""Ops with weights and the smooth functions, in float64 and without overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import pair

Array = npt.NDArray[Any]
_ERF, _ERFC = np.frompyfunc(math.erf, 1, 1), np.frompyfunc(math.erfc, 1, 1)


def erf(x: Array) -> Array:
    """Error function, to the last bits: NumPy has none, Python's own is used element by element."""
    return np.asarray(_ERF(x), dtype=np.float64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); the exponential is of negative numbers only, so that it cannot overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def gelu(a: Attributes, x: Array) -> Array:
    """x times the normal distribution function, or its tanh form, which is a sigmoid of twice the argument."""
    if a.approximate:
        return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    # erfc keeps its digits where 1 + erf cancels, far below zero.
    return 0.5 * x * np.asarray(_ERFC(-x / math.sqrt(2)), dtype=np.float64)


def softmax(x: Array, axis: int) -> Array:
    raised = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int) -> Array:
    lowered = x - np.max(x, axis=axis, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=axis, keepdims=True))


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    return _add(np.matmul(x, weight.T), bias)


def layer_norm(a: Attributes, x: Array, weight: Array | None, bias: Array | None) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return _add(_scale(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + a.eps), weight), bias)


def rms_norm(a: Attributes, x: Array, weight: Array | None) -> Array:
    return _scale(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + a.eps), weight)


def group_norm(a: Attributes, x: Array, weight: Array, bias: Array) -> Array:
    """Normalise groups of channels of x [batch, channels, ...] together with all later axes."""
    grouped = x.reshape(x.shape[0], a.groups, -1)
    centred = grouped - grouped.mean(axis=-1, keepdims=True)
    normal = (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + a.eps)).reshape(x.shape)
    channels = (-1, *(1,) * (x.ndim - 2))
    return normal * weight.reshape(channels) + bias.reshape(channels)


def conv1d(a: Attributes, x: Array, weight: Array, bias: Array | None) -> Array:
    """Convolution of x [batch, channels, time] with weight [out, channels / groups, kernel]."""
    padded = np.pad(x, ((0, 0), (0, 0), pair(a.padding)))
    windows = sliding_window_view(padded, a.dilation * (a.kernel - 1) + 1, axis=2)
    windows = windows[:, :, :: a.stride, :: a.dilation]
    batch, channels, time, _ = windows.shape
    grouped = windows.reshape(batch, a.groups, channels // a.groups, time, a.kernel)
    kernels = weight.reshape(a.groups, a.out // a.groups, *weight.shape[1:])
    result = np.einsum("bgctk,gock->bgot", grouped, kernels, optimize=True).reshape(batch, a.out, time)
    return _add(result, None if bias is None else bias[:, None])


def conv2d(a: Attributes, x: Array, weight: Array, bias: Array | None) -> Array:
    """Convolution of x [batch, channels, height, width] with weight [out, channels / groups, rows, columns]."""
    (top, left), (down, right), apart = pair(a.padding), pair(a.stride), pair(a.dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    span = [step * (size - 1) + 1 for step, size in zip(apart, weight.shape[2:], strict=True)]
    windows = sliding_window_view(padded, span, axis=(2, 3))[:, :, ::down, ::right, :: apart[0], :: apart[1]]
    batch, channels, height, width = windows.shape[:4]
    grouped = windows.reshape(batch, a.groups, channels // a.groups, height, width, *weight.shape[2:])
    kernels = weight.reshape(a.groups, a.out // a.groups, *weight.shape[1:])
    result = np.einsum("bgcyxij,gocij->bgoyx", grouped, kernels, optimize=True).reshape(batch, a.out, height, width)
    return _add(result, None if bias is None else bias[:, None, None])


def _scale(x: Array, weight: Array | None) -> Array:
    return x if weight is None else x * weight


def _add(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias
