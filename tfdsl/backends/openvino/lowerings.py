"""The table of lowerings: for each op, a short function that adds operators of `openvino.opset16`.

A lowering is given the builder, the op's attributes with their defaults, and the operands (None for those that are
absent), and gives the output that holds the result, or those of all results in a tuple.

The CPU plugin holds whole numbers in 32 bits. Arithmetic on them, element by element, is exact; comparisons, reductions
and the value of `pad` go through float32, which does not tell neighbours beyond 2 ** 24 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openvino

from tfdsl.backends.openvino import attention, recurrences, sizes
from tfdsl.backends.openvino.builder import Builder, Operand, Tensor
from tfdsl.backends.openvino.shapes import SHAPE_LOWERINGS
from tfdsl.backends.openvino.stateful import STATEFUL_LOWERINGS
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Value
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import pair
from tfdsl.ir.rearrange import letters

Lowering = Callable[..., Any]

_LEAST = -3.4028234663852886e38  # the least float32: the larger of it and any number is that number
_CONVERTED = {"float": "f32", "int": "i64"}

# --- parameters ------------------------------------------------------------------------------------------------------


def _input(b: Builder, a: Attributes) -> openvino.Output:
    return b.parameters[a.name].output(0)


def _weight(b: Builder, a: Attributes) -> openvino.Output:
    assert b.node is not None
    readers = b.graph.users(Value(b.node.id))
    scale = all(user.op == "dequantize" and place == 1 for user, place in readers)
    return b.weight(a.path, b.node.type, _stored(b, b.node.type.dims), scale)


def _stored(b: Builder, dims: tuple[Any, ...]) -> tuple[int, ...]:
    """How a weight lies in the file: groups as [rows, groups, group], their scales as [rows, groups, 1]."""
    assert b.node is not None
    for user, place in b.graph.users(Value(b.node.id)):
        if user.op == "dequantize":
            rows, *groups = b.graph.type(user.inputs[1]).dims  # type: ignore[arg-type]
            if any(each != 1 for each in groups):
                return (rows, groups[0], dims[1] // groups[0] if place == 0 else 1)  # type: ignore[return-value]
    return dims


def _dequantize(b: Builder, a: Attributes, q: Tensor, scale: Tensor) -> Operand:
    # A product that has these three before it keeps its weights as whole numbers.
    floats = b.emit("multiply", b.emit("convert", q, destination_type="f32"), scale)
    assert b.node is not None
    if any(user.op == "matmul" for user, _ in b.graph.users(Value(b.node.id))):
        # For a single row the plugin takes the scales to be those of the results, which are the columns of this weight.
        floats = b.emit("maximum", floats, b.scalar(_LEAST, "float"))
    if all(dim == 1 for dim in scale.dims[1:]):
        return floats
    return b.emit("reshape", floats, sizes.shape(b, q.dims), special_zero=False)


def _linear(b: Builder, a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Operand:
    product = b.emit("matmul", x, weight, transpose_a=False, transpose_b=True)
    return product if bias is None else b.emit("add", product, _row(b, bias, x.rank))


def _embedding(b: Builder, a: Attributes, ids: Tensor, weight: Tensor) -> openvino.Output:
    return b.emit("gather", weight, ids, b.scalar(0, "int"))


def _layer_norm(b: Builder, a: Attributes, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Operand:
    normal = b.emit("mvn", x, b.ints(-1), normalize_variance=True, eps=float(a.eps), eps_mode="inside_sqrt")
    return _plus(b, _times(b, normal, weight), bias)


def _rms_norm(b: Builder, a: Attributes, x: Tensor, weight: Tensor | None) -> Operand:
    mean = b.emit("reduce_mean", b.emit("power", x, b.scalar(2, "float")), b.ints(-1), keep_dims=True)
    root = b.emit("sqrt", b.emit("add", mean, b.scalar(a.eps, "float")))
    return _times(b, b.emit("multiply", x, b.emit("divide", b.scalar(1, "float"), root)), weight)


def _group_norm(b: Builder, a: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> openvino.Output:
    return b.emit("group_normalization", x, weight, bias, num_groups=a.groups, epsilon=float(a.eps))


def _conv1d(b: Builder, a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Operand:
    before, after = pair(a.padding)
    return _convolution(b, a, x, weight, bias, strides=(a.stride,), pads=((before,), (after,)), dilations=(a.dilation,))


def _conv2d(b: Builder, a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Operand:
    padding = pair(a.padding)
    return _convolution(
        b, a, x, weight, bias, strides=pair(a.stride), pads=(padding, padding), dilations=pair(a.dilation)
    )


def _convolution(
    b: Builder,
    a: Attributes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    strides: tuple[int, ...],
    pads: tuple[tuple[int, ...], tuple[int, ...]],
    dilations: tuple[int, ...],
) -> Operand:
    settings = {"strides": strides, "pads_begin": pads[0], "pads_end": pads[1], "dilations": dilations}
    if a.groups == 1:
        result = b.emit("convolution", x, weight, **settings)
    else:
        out, *rest = weight.dims
        grouped = sizes.reshape(b, weight, weight.dims, (a.groups, out // a.groups, *rest))
        result = b.emit("group_convolution", x, grouped, **settings)
    if bias is None:
        return result
    return b.emit("add", result, sizes.reshape(b, bias, bias.dims, (1, *bias.dims, *(1,) * len(strides))))


def _times(b: Builder, x: Operand, factor: Tensor | None) -> Operand:
    return x if factor is None else b.emit("multiply", x, factor)


def _plus(b: Builder, x: Operand, bias: Tensor | None) -> Operand:
    return x if bias is None else b.emit("add", x, bias)


# --- products --------------------------------------------------------------------------------------------------------


def _matmul(b: Builder, a: Attributes, left: Tensor, right: Tensor) -> openvino.Output:
    return b.emit("matmul", left, right, transpose_a=False, transpose_b=False)


def _einsum(b: Builder, a: Attributes, *x: Tensor) -> openvino.Output:
    return b.emit("einsum", *x, equation=letters(a.pattern))


# --- elementwise -----------------------------------------------------------------------------------------------------


def _plain(operator: str, **settings: Any) -> Lowering:
    """An op that is one operator over the same operands."""
    return lambda b, a, *x: b.emit(operator, *x, **settings)


def _add(b: Builder, a: Attributes, left: Tensor, right: Tensor) -> openvino.Output:
    return b.emit("add", _row(b, left, right.rank), _row(b, right, left.rank))


def _row(b: Builder, x: Tensor, rank: int) -> Operand:
    """A vector beside a matrix as one of its rows: OpenVINO's `GRUCellFusion` splits what is added along the second axis."""
    return b.emit("unsqueeze", x, b.ints(0)) if x.rank == 1 and rank == 2 else x


def _itself(b: Builder, a: Attributes, x: Tensor) -> Tensor:
    """An op of training only."""
    return x


def _gelu(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return b.emit("gelu", x, approximation_mode="tanh" if a.approximate else "erf")


def _silu(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    # Without its factor the operator makes one, whose name is another in each build.
    return b.emit("swish", x, b.scalar(1, "float"))


def _softplus(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    # The operator SoftPlus is off by 2e-6 below zero, where the result itself is small; so log(1 + e) is written as
    # 2 atanh(e / (2 + e)), which loses no digits.
    two = b.scalar(2, "float")
    small = b.emit("exp", b.emit("negative", b.emit("abs", x)))
    rest = b.emit("multiply", b.emit("atanh", b.emit("divide", small, b.emit("add", small, two))), two)
    return b.emit("add", b.emit("relu", x), rest)


def _floordiv(b: Builder, a: Attributes, left: Tensor, right: Tensor) -> openvino.Output:
    return sizes.floor_division(b, left, right)


def _mod(b: Builder, a: Attributes, left: Tensor, right: Tensor) -> openvino.Output:
    return sizes.remainder(b, left, right)


def _cast(b: Builder, a: Attributes, x: Tensor) -> Operand:
    if x.type.dtype == a.to:
        return x
    if a.to == "bool":
        return b.emit("not_equal", x, b.scalar(0, x.type.dtype))
    return b.emit("convert", x, destination_type=_CONVERTED[a.to])


def _constant(b: Builder, a: Attributes) -> Operand:
    if not isinstance(a.value, Dim):
        return b.scalar(a.value, a.dtype)
    size = sizes.scalar(b, a.value)
    return size if a.dtype == "int" else b.emit("convert", size, destination_type=_CONVERTED[a.dtype])


# --- reductions ------------------------------------------------------------------------------------------------------


def _log_softmax(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return b.emit("log_softmax", x, axis=a.axis)


def _reduce(operator: str) -> Lowering:
    return lambda b, a, x: b.emit(operator, x, b.ints(a.axis), keep_dims=a.keep)


def _argmax(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    _, index = _largest(b, x, b.scalar(1, "int"), a.axis)
    return b.emit("squeeze", index, b.ints(a.axis))


def _top_k(b: Builder, a: Attributes, x: Tensor) -> tuple[openvino.Output, ...]:
    return _largest(b, x, sizes.scalar(b, a.k), a.axis)


def _largest(b: Builder, x: Tensor, number: openvino.Output, axis: int) -> tuple[openvino.Output, ...]:
    settings = {"mode": "max", "sort": "value", "index_element_type": "i64", "stable": True}
    return b.emit_all("topk", x, number, axis=axis, **settings)


def _cumsum(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return b.emit("cum_sum", x, b.scalar(a.axis, "int"))


LOWERINGS: dict[str, Lowering] = {
    # parameters
    "input": _input,
    "weight": _weight,
    "dequantize": _dequantize,
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    # products
    "matmul": _matmul,
    "einsum": _einsum,
    # attention
    "attend": attention.attend,
    "rotate": attention.rotate,
    # elementwise
    "exp": _plain("exp"),
    "log": _plain("log"),
    "sqrt": _plain("sqrt"),
    "sin": _plain("sin"),
    "cos": _plain("cos"),
    "tanh": _plain("tanh"),
    "sigmoid": _plain("sigmoid"),
    "relu": _plain("relu"),
    "silu": _silu,
    "softplus": _softplus,
    "erf": _plain("erf"),
    "gelu": _gelu,
    "neg": _plain("negative"),
    "abs": _plain("abs"),
    "floor": _plain("floor"),
    "add": _add,
    "sub": _plain("subtract"),
    "mul": _plain("multiply"),
    "div": _plain("divide"),
    "pow": _plain("power"),
    "maximum": _plain("maximum"),
    "minimum": _plain("minimum"),
    "floordiv": _floordiv,
    "mod": _mod,
    "eq": _plain("equal"),
    "ne": _plain("not_equal"),
    "lt": _plain("less"),
    "le": _plain("less_equal"),
    "gt": _plain("greater"),
    "ge": _plain("greater_equal"),
    "both": _plain("logical_and"),
    "either": _plain("logical_or"),
    "negate": _plain("logical_not"),
    "where": _plain("select"),
    "cast": _cast,
    "constant": _constant,
    "dropout": _itself,
    "drop_path": _itself,
    # reductions
    "softmax": attention.softmax,
    "log_softmax": _log_softmax,
    "sum": _reduce("reduce_sum"),
    "mean": _reduce("reduce_mean"),
    "max": _reduce("reduce_max"),
    "min": _reduce("reduce_min"),
    "argmax": _argmax,
    "cumsum": _cumsum,
    "top_k": _top_k,
    # states: in stateful.py
    **STATEFUL_LOWERINGS,
    # shape: in shapes.py
    **SHAPE_LOWERINGS,
    "scan": recurrences.scan,
}
REFUSED: dict[str, str] = {
    "repeat": "unrolled before",
    "route": "unrolled before",
    "linear_attend": "made into products before",
    "prune": "computed when the model is built",
    "quantize": "computed when the model is built",
}
