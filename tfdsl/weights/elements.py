"""Element types of stored tensors, spelled as safetensors does, and the conversions between those of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.language.diagnostics import one
from tfdsl.weights.storing import DTYPES

Array = npt.NDArray[Any]

# How each lies in memory. NumPy has no bfloat16: it is held as the upper half of a float32.
FLOATS: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
INTS: dict[str, Any] = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "U8": np.uint8}
NUMPY: dict[str, Any] = {**FLOATS, **INTS}
# Two whole numbers in a byte, the first of them in its low half. Not of safetensors: artifacts alone have it.
PACKED = "I4"


def byte_count(dtype: str, elements: int) -> int:
    """The bytes of so many elements."""
    return (elements + 1) // 2 if dtype == PACKED else elements * np.dtype(NUMPY[dtype]).itemsize


_INFINITE = {"F16": 0x7C00, "BF16": 0x7F80}  # the bits of infinity without its sign
_SPELLED = {np.dtype(kind): name for name, kind in NUMPY.items() if name != "BF16"}


def is_known(array: Array) -> bool:
    """Whether the element type of an array of NumPy's has a spelling."""
    return array.dtype in _SPELLED


def spelling(array: Array) -> str:
    """The element type of an array of NumPy's, as safetensors spells it."""
    return _SPELLED[array.dtype]


def as_float(raw: Array, dtype: str) -> Array:
    """A tensor as it is stored, of an element type as the format spells it, in float32; whole numbers stay such."""
    if dtype == "BF16":
        bits = raw.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return raw.astype(np.float32, copy=False) if dtype in FLOATS else raw


def convert(raw: Array, dtype: str, wanted: str, name: str) -> Array:
    """A tensor of one element type in another; floats are rounded to the nearest.

    Raises `SpecError` for a number that is too large for the wanted one; `name` tells whose it is.
    """
    if dtype == wanted:
        return raw
    if wanted == PACKED:
        return _packed(raw)
    if wanted not in FLOATS or dtype not in FLOATS:
        return raw.astype(NUMPY[wanted])
    if wanted == "F64" and dtype != "BF16":
        return raw.astype(np.float64)
    floats = as_float(raw, dtype)
    with np.errstate(over="ignore"):
        made: Array = _bfloat16(floats) if wanted == "BF16" else floats.astype(NUMPY[wanted])
    infinite = (made.view(np.uint16) & 0x7FFF) == _INFINITE[wanted] if wanted in _INFINITE else np.isinf(made)
    if infinite.any() and (lost := infinite & np.isfinite(floats)).any():
        largest = float(np.max(np.abs(floats[lost])))
        help_ = "bfloat16 and float32 reach further"
        raise one("T809", f"`{name}` has {largest:g}, which is too large for {_people(wanted)}", help=help_)
    return made


def rounded(array: Array, dtype: str, name: str) -> Array:
    """A float32 array with the numbers that it has in another element type; whole numbers stay. Raises `SpecError`."""
    return as_float(convert(array, "F32", dtype, name), dtype) if array.dtype == np.float32 else array


def _bfloat16(floats: Array) -> Array:
    """Float32 rounded to the nearest bfloat16, of two equally near to the even one; NaN stays NaN."""
    bits = np.ascontiguousarray(floats).view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    rounded[np.isnan(floats)] = 0x7FC0_0000
    return (rounded >> 16).astype(np.uint16)


def _packed(array: Array) -> Array:
    flat = array.reshape(-1).view(np.uint8) & 0xF
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return flat[::2] | flat[1::2] << 4


def _people(dtype: str) -> str:
    return next((name for name, each in DTYPES.items() if each == dtype), dtype)
