"""The table of lowerings: for each op, a short function that adds standard operators of opset 24.

A lowering is given the builder, the op's attributes with their defaults, and the names of the operands (None for those
that are absent), and gives the name of the result, or the names of all results in a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from tfdsl.backends.onnx import attention, recurrences, sizes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.shapes import SHAPE_LOWERINGS
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Value
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import pair
from tfdsl.ir.rearrange import letters

Lowering = Callable[..., Any]

# --- parameters ------------------------------------------------------------------------------------------------------


def _linear(b: Builder, a: Attributes, x: str, weight: str, bias: str | None) -> str:
    matrix = weight if b.layout.get(weight) == "transposed" else b.emit("Transpose", weight, perm=(1, 0))
    product = b.emit("MatMul", x, matrix)
    return product if bias is None else b.emit("Add", product, bias)


def _input(b: Builder, a: Attributes) -> str:
    assert b.node is not None
    name = str(a.name)
    return (
        b.emit("Cast", name, to=b.element("float")) if b.node.type.dtype == "float" and b.precision != "F32" else name
    )


def _weight(b: Builder, a: Attributes) -> str:
    assert b.node is not None
    readers = b.graph.users(Value(b.node.id))
    # The operator that dequantises has scales of float32 and float16 only.
    scales = all(user.op == "dequantize" and place == 1 for user, place in readers)
    return b.weight(a.path, b.node.type, "F32" if scales and b.stored_floats == "BF16" else None)


def _embedding(b: Builder, a: Attributes, ids: str, weight: str) -> str:
    return b.emit("Gather", weight, ids, axis=0)


def _layer_norm(b: Builder, a: Attributes, x: str, weight: str | None, bias: str | None) -> str:
    return b.emit("LayerNormalization", x, weight or _ones(b, x), bias, axis=-1, epsilon=float(a.eps))


def _rms_norm(b: Builder, a: Attributes, x: str, weight: str | None) -> str:
    return b.emit("RMSNormalization", x, weight or _ones(b, x), axis=-1, epsilon=float(a.eps))


def _ones(b: Builder, x: str) -> str:
    """The scale of a normalisation that has none; the operators want one."""
    size = b.dims(x)[-1]
    if isinstance(size, int):
        return b.constant(np.ones(size, dtype=b.numpy_type("float")))
    return b.emit("Expand", b.scalar(1, "float"), sizes.size(b, size))


def _group_norm(b: Builder, a: Attributes, x: str, weight: str, bias: str) -> str:
    """Written out: the operator subtracts squares in ONNX Runtime, which makes NaN of equal numbers that are large."""
    half = b.precision != "F32"
    grouped = b.emit("Reshape", b.emit("Cast", x, to=onnx.TensorProto.FLOAT) if half else x, b.ints(0, a.groups, -1))
    centred = b.emit("Sub", grouped, b.emit("ReduceMean", grouped, b.ints(-1), keepdims=1))
    variance = b.emit("ReduceMean", b.emit("Mul", centred, centred), b.ints(-1), keepdims=1)
    deviation = b.emit("Sqrt", b.emit("Add", variance, b.constant(np.asarray(a.eps, dtype=np.float32))))
    normal = b.emit("Reshape", b.emit("Div", centred, deviation), sizes.shape(b, b.dims(x)))
    normal = b.emit("Cast", normal, to=b.element("float")) if half else normal
    channels = b.ints(-1, *(1,) * (len(b.dims(x)) - 2))
    scaled = b.emit("Mul", normal, b.emit("Reshape", weight, channels))
    return b.emit("Add", scaled, b.emit("Reshape", bias, channels))


def _conv1d(b: Builder, a: Attributes, x: str, weight: str, bias: str | None) -> str:
    settings = {"strides": (a.stride,), "dilations": (a.dilation,), "pads": pair(a.padding), "group": a.groups}
    return b.emit("Conv", x, weight, bias, kernel_shape=(a.kernel,), **settings)


def _conv2d(b: Builder, a: Attributes, x: str, weight: str, bias: str | None) -> str:
    settings = {
        "strides": pair(a.stride),
        "dilations": pair(a.dilation),
        "pads": pair(a.padding) * 2,
        "group": a.groups,
    }
    return b.emit("Conv", x, weight, bias, kernel_shape=pair(a.kernel), **settings)


def _dequantize(b: Builder, a: Attributes, q: str, scale: str) -> str:
    turned = b.layout.get(q) == "transposed"
    scales = b.dims(scale)
    if all(dim == 1 for dim in scales[1:]):  # one for each row
        flat = scale if b.layout.get(scale) == "flat" else b.emit("Reshape", scale, b.ints(-1))
        result = b.emit("DequantizeLinear", q, flat, axis=1 if turned else 0)
    else:
        block = b.dims(q)[1] // scales[1]
        result = b.emit("DequantizeLinear", q, scale, axis=0 if turned else 1, block_size=block)
    if turned:
        b.layout[result] = "transposed"
    return result


# --- products --------------------------------------------------------------------------------------------------------


def _einsum(b: Builder, a: Attributes, *x: str) -> str:
    return b.emit("Einsum", *x, equation=letters(a.pattern))


# --- elementwise -----------------------------------------------------------------------------------------------------


def _plain(operator: str) -> Lowering:
    """An op that is one operator over the same operands."""
    return lambda b, a, *x: b.emit(operator, *x)


def _itself(b: Builder, a: Attributes, x: str) -> str:
    """An op of training only."""
    return x


def _silu(b: Builder, a: Attributes, x: str) -> str:
    # The operator Swish says the same and is not everywhere fused.
    return b.emit("Mul", x, b.emit("Sigmoid", x))


def _gelu(b: Builder, a: Attributes, x: str) -> str:
    return b.emit("Gelu", x, approximate="tanh" if a.approximate else "none")


def _floordiv(b: Builder, a: Attributes, left: str, right: str) -> str:
    return sizes.floor_division(b, left, right)


def _not_equal(b: Builder, a: Attributes, left: str, right: str) -> str:
    return b.emit("Not", b.emit("Equal", left, right))


def _where(b: Builder, a: Attributes, condition: str, yes: str, no: str) -> str:
    if b.types[yes].dtype != "bool":
        return b.emit("Where", condition, yes, no)
    # ONNX Runtime's Where is not for booleans.
    return b.emit("Or", b.emit("And", condition, yes), b.emit("And", b.emit("Not", condition), no))


def _cast(b: Builder, a: Attributes, x: str) -> str:
    return x if b.types[x].dtype == a.to else b.emit("Cast", x, to=b.element(a.to))


def _constant(b: Builder, a: Attributes) -> str:
    if not isinstance(a.value, Dim):
        return b.number(a.value, a.dtype)
    size = sizes.scalar(b, a.value)
    return size if a.dtype == "int" else b.emit("Cast", size, to=b.element(a.dtype))


# --- reductions ------------------------------------------------------------------------------------------------------


def _along(operator: str) -> Lowering:
    """An op along an axis that is one operator with an attribute for it."""
    return lambda b, a, x: b.emit(operator, x, axis=a.axis)


def _reduce(operator: str) -> Lowering:
    return lambda b, a, x: b.emit(operator, x, b.ints(a.axis), keepdims=int(a.keep))


def _argmax(b: Builder, a: Attributes, x: str) -> str:
    return b.emit("ArgMax", x, axis=a.axis, keepdims=0)


def _cumsum(b: Builder, a: Attributes, x: str) -> str:
    return b.emit("CumSum", x, b.scalar(a.axis, "int"))


def _top_k(b: Builder, a: Attributes, x: str) -> tuple[str, ...]:
    return b.emit_all("TopK", 2, x, sizes.size(b, a.k), axis=a.axis)


LOWERINGS: dict[str, Lowering] = {
    # parameters
    "input": _input,
    "weight": _weight,
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "dequantize": _dequantize,
    # products
    "matmul": _plain("MatMul"),
    "einsum": _einsum,
    # attention
    "attend": attention.attend,
    "rotate": attention.rotate,
    # elementwise
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "sqrt": _plain("Sqrt"),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "relu": _plain("Relu"),
    "silu": _silu,
    "softplus": _plain("Softplus"),
    "erf": _plain("Erf"),
    "gelu": _gelu,
    "neg": _plain("Neg"),
    "abs": _plain("Abs"),
    "floor": _plain("Floor"),
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "pow": _plain("Pow"),
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "floordiv": _floordiv,
    "mod": _plain("Mod"),
    "eq": _plain("Equal"),
    "ne": _not_equal,
    "lt": _plain("Less"),
    "le": _plain("LessOrEqual"),
    "gt": _plain("Greater"),
    "ge": _plain("GreaterOrEqual"),
    "both": _plain("And"),
    "either": _plain("Or"),
    "negate": _plain("Not"),
    "where": _where,
    "cast": _cast,
    "constant": _constant,
    "dropout": _itself,
    "drop_path": _itself,
    # reductions
    "softmax": _along("Softmax"),
    "log_softmax": _along("LogSoftmax"),
    "sum": _reduce("ReduceSum"),
    "mean": _reduce("ReduceMean"),
    "max": _reduce("ReduceMax"),
    "min": _reduce("ReduceMin"),
    "argmax": _argmax,
    "cumsum": _cumsum,
    "top_k": _top_k,
    "scan": recurrences.scan,
    # shape: in shapes.py
    **SHAPE_LOWERINGS,
}
REFUSED: dict[str, str] = {
    "append": "it is for models that decode with a state",
    "running_attend": "it is for models that decode with a state",
    "running_sum": "it is for models that decode with a state",
    "recall": "it is for models that decode with a state",
    "remember": "it is for models that decode with a state",
    "repeat": "unrolled before",
    "route": "unrolled before",
    "linear_attend": "made into products before",
    "prune": "computed when the model is built",
    "quantize": "computed when the model is built",
}
