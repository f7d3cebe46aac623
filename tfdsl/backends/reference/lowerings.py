"""The table of the reference: what every op computes, in float64, int64 and bool arrays.

An entry takes the attributes, sizes as numbers, and the operands (`None` where an optional one is absent). The
few that need more (`weight`, `repeat`) take the machine and the node as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfdsl.backends.reference import attention, layers
from tfdsl.ir import tables
from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Loop, Node
from tfdsl.ir.op import Attributes
from tfdsl.ir.rearrange import letters, rearrangement
from tfdsl.weights.compression import dequantize, prune, quantize

if TYPE_CHECKING:
    from tfdsl.backends.reference.interpreter import Machine

Array = npt.NDArray[Any]
Lowering = Callable[..., Any]

DTYPES: dict[str, Any] = {"float": np.float64, "int": np.int64, "bool": np.bool_}


class OutOfRange(Exception):
    """Values for which an op has no meaning, such as an index beyond its table."""


def _rows(table: Array, index: Array, axis: int) -> Array:
    _check_index(index, table.shape[axis])
    return np.take(table, index, axis=axis)


def _check_index(index: Array, size: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= size):
        raise OutOfRange(f"an index of {index.min()} .. {index.max()} into an axis of {size}")


def _divisor(b: Array) -> Array:
    if np.any(b == 0):
        raise OutOfRange("a whole number is divided by zero")
    return b


def _top_k(a: Attributes, x: Array) -> tuple[Array, Array]:
    if a.k > x.shape[a.axis]:
        raise OutOfRange(f"the {a.k} largest of {x.shape[a.axis]}")
    order = np.argsort(-x, axis=a.axis, kind="stable")
    index = np.take(order, np.arange(a.k), axis=a.axis)
    return np.take_along_axis(x, index, axis=a.axis), index


def _rearrange(a: Attributes, x: Array) -> Array:
    steps = rearrangement(a.pattern, x.shape, dict(a.sizes or ()))
    split, merged = ([evaluate(size, {}) for size in sizes] for sizes in (steps.split, steps.merged))
    return x.reshape(split).transpose(steps.order).reshape(merged)


def _split(a: Attributes, x: Array) -> tuple[Array, ...]:
    sizes = a.sizes or (x.shape[a.axis] // a.parts,) * a.parts
    parts = np.split(x, np.cumsum(sizes)[:-1], axis=a.axis)
    return tuple(part.squeeze(a.axis) if a.squeeze else part for part in parts)


def _slice(a: Attributes, x: Array) -> Array:
    size = x.shape[a.axis]
    stop = size if a.stop is None else a.stop
    if not 0 <= a.start <= stop <= size:
        raise OutOfRange(f"positions {a.start} .. {stop} of an axis of {size}")
    return np.moveaxis(np.moveaxis(x, a.axis, 0)[a.start : stop : a.step], 0, a.axis)


def _select(a: Attributes, x: Array) -> Array:
    size = x.shape[a.axis]
    if not -size <= a.index < size:
        raise OutOfRange(f"position {a.index} of an axis of {size}")
    return np.moveaxis(x, a.axis, 0)[a.index]


def _pad(a: Attributes, x: Array) -> Array:
    if a.before < 0 or a.after < 0:
        raise OutOfRange(f"{min(a.before, a.after)} positions are added")
    widths = [(0, 0)] * x.ndim
    widths[a.axis] = (a.before, a.after)
    return np.pad(x, widths, constant_values=x.dtype.type(a.value))


def _cast(a: Attributes, x: Array) -> Array:
    # Floats become whole towards zero, which is what astype does; anything but zero is true.
    return x.astype(DTYPES[a.to])


def _take_along(a: Attributes, x: Array, index: Array) -> Array:
    _check_index(index, x.shape[a.axis])
    return np.take_along_axis(x, index, axis=a.axis)


def _prune(a: Attributes, weight: Array) -> Array:
    return prune(weight.astype(np.float32), a.sparsity, a.pattern).astype(np.float64)


def _quantize(a: Attributes, weight: Array) -> tuple[Array, Array]:
    q, scale = quantize(weight.astype(np.float32), a.bits, a.group)
    return q.astype(np.int64), scale.astype(np.float64)


def _dequantize(a: Attributes, q: Array, scale: Array) -> Array:
    # In float32, as every target does it: the dequantised weights are the same everywhere, to the bit.
    return dequantize(q, scale.astype(np.float32)).astype(np.float64)


_PLAIN: dict[str, Lowering] = {
    # parameters
    "linear": lambda a, x, weight, bias: layers.linear(x, weight, bias),
    "embedding": lambda a, ids, weight: _rows(weight, ids, 0),
    "layer_norm": layers.layer_norm,
    "rms_norm": layers.rms_norm,
    "group_norm": layers.group_norm,
    "conv1d": layers.conv1d,
    "conv2d": layers.conv2d,
    # products
    "matmul": lambda a, left, right: np.matmul(left, right),
    "einsum": lambda a, *x: np.einsum(letters(a.pattern), *x, optimize=True),
    # attention
    "attend": attention.attend,
    "linear_attend": attention.linear_attend,
    "rotate": attention.rotate,
    "positions": lambda a, x: np.arange(x.shape[a.axis], dtype=np.int64),
    # elementwise
    "exp": lambda a, x: np.exp(x),
    "log": lambda a, x: np.log(x),
    "sqrt": lambda a, x: np.sqrt(x),
    "sin": lambda a, x: np.sin(x),
    "cos": lambda a, x: np.cos(x),
    "tanh": lambda a, x: np.tanh(x),
    "sigmoid": lambda a, x: layers.sigmoid(x),
    "relu": lambda a, x: np.maximum(x, 0.0),
    "silu": lambda a, x: x * layers.sigmoid(x),
    "softplus": lambda a, x: np.logaddexp(0.0, x),
    "erf": lambda a, x: layers.erf(x),
    "gelu": layers.gelu,
    "neg": lambda a, x: -x,
    "abs": lambda a, x: np.abs(x),
    "floor": lambda a, x: np.floor(x),
    "add": lambda a, left, right: left + right,
    "sub": lambda a, left, right: left - right,
    "mul": lambda a, left, right: left * right,
    "maximum": lambda a, left, right: np.maximum(left, right),
    "minimum": lambda a, left, right: np.minimum(left, right),
    "div": lambda a, left, right: left / right,
    "pow": lambda a, left, right: left**right,
    "floordiv": lambda a, left, right: left // _divisor(right),
    "mod": lambda a, left, right: left % _divisor(right),
    "eq": lambda a, left, right: left == right,
    "ne": lambda a, left, right: left != right,
    "lt": lambda a, left, right: left < right,
    "le": lambda a, left, right: left <= right,
    "gt": lambda a, left, right: left > right,
    "ge": lambda a, left, right: left >= right,
    "both": lambda a, left, right: left & right,
    "either": lambda a, left, right: left | right,
    "negate": lambda a, x: ~x,
    "where": lambda a, condition, yes, no: np.where(condition, yes, no),
    "cast": _cast,
    "dropout": lambda a, x: x,
    "drop_path": lambda a, x: x,
    # reductions
    "softmax": lambda a, x: layers.softmax(x, a.axis),
    "log_softmax": lambda a, x: layers.log_softmax(x, a.axis),
    "sum": lambda a, x: np.sum(x, axis=a.axis, keepdims=a.keep),
    "mean": lambda a, x: np.mean(x, axis=a.axis, keepdims=a.keep),
    "max": lambda a, x: np.max(x, axis=a.axis, keepdims=a.keep),
    "min": lambda a, x: np.min(x, axis=a.axis, keepdims=a.keep),
    "argmax": lambda a, x: np.argmax(x, axis=a.axis),
    "cumsum": lambda a, x: np.cumsum(x, axis=a.axis),
    "top_k": _top_k,
    # shape
    "rearrange": _rearrange,
    "split": _split,
    "concat": lambda a, *x: np.concatenate(x, axis=a.axis),
    "slice": _slice,
    "select": _select,
    "pad": _pad,
    "expand": lambda a, x: np.broadcast_to(x, a.shape),
    "swap": lambda a, x: np.swapaxes(x, a.first, a.second),
    "roll": lambda a, x: np.roll(x, a.shift, axis=a.axis),
    "gather": lambda a, x, index: _rows(x, index, a.axis),
    "take_along": _take_along,
    # An integer outside 0 .. classes-1 names no position: its row is all zeros.
    "one_hot": lambda a, x: (x[..., None] == np.arange(a.classes)).astype(np.float64),
    "iota": lambda a: np.arange(a.size, dtype=np.int64),
    "tensor": lambda a: np.array(a.values, dtype=DTYPES[tables.dtype(a.values)]),
    # made by elaboration and by passes
    "constant": lambda a: np.asarray(a.value, dtype=DTYPES[a.dtype]),
    "prune": _prune,
    "quantize": _quantize,
    "dequantize": _dequantize,
}


def _plain(compute: Lowering) -> Lowering:
    def lowered(machine: Machine, node: Node, *operands: Array | None) -> Any:
        return compute(machine.attributes(node), *operands)

    return lowered


def _input(machine: Machine, node: Node) -> Array:
    return machine.given[node.id]


def _weight(machine: Machine, node: Node) -> Array:
    return machine.weight(node)


def _repeat(machine: Machine, node: Node, *operands: Array) -> tuple[Array, ...]:
    a = machine.attributes(node)
    carried, captured = operands[: a.carried], operands[a.carried :]
    for turn, body in enumerate(a.turns):
        carried = machine.turn(node.bodies[body], Loop(a.path, (turn,)), (*carried, *captured))
    return carried


def _route(machine: Machine, node: Node, x: Array, chosen: Array, weight: Array, *captured: Array) -> Array:
    """Each expert over the rows that chose it; a number that names no expert adds nothing."""
    a = machine.attributes(node)
    y = np.zeros((len(x), machine.shape(node)[-1]))
    for expert, body in enumerate(a.turns):
        here = chosen == expert
        rows = here.any(axis=-1)
        if rows.any():
            (made,) = machine.turn(node.bodies[body], Loop(a.path, (expert,)), (x[rows], *captured))
            y[rows] += made * np.where(here, weight, 0.0).sum(axis=-1, keepdims=True)[rows]
    return y


def _scan(machine: Machine, node: Node, *operands: Array) -> tuple[Array, ...]:
    """The step at one position after another; results are stacked along the axis."""
    a = machine.attributes(node)
    states, scanned = operands[: a.carried], operands[a.carried : a.carried + a.scanned]
    captured = operands[a.carried + a.scanned :]
    rows: list[tuple[Array, ...]] = []
    for position in range(scanned[0].shape[a.axis]):
        here = [np.take(each, position, axis=a.axis) for each in scanned]
        results = machine.turn(node.bodies[0], Loop(a.path, (position,)), (*states, *here, *captured))
        states = results[: a.carried]
        rows.append(results[a.carried :])
    return (*states, *(np.stack(row, axis=a.axis) for row in zip(*rows, strict=True)))


def _append(machine: Machine, node: Node, x: Array) -> Array:
    a, path = machine.attributes(node), machine.state_path(node)
    before = machine.state.get(path)
    if before is None:
        before = np.zeros((*x.shape[: a.axis], a.fill, *x.shape[a.axis + 1 :]), x.dtype)
    if before.shape[a.axis] != a.size:
        raise OutOfRange(f"the state `{path}` has {before.shape[a.axis]} positions, not {a.size}")
    whole = np.concatenate((before, x), axis=a.axis)
    start = 0 if a.last is None else max(whole.shape[a.axis] - a.last, 0)
    machine.state[path] = np.moveaxis(np.moveaxis(whole, a.axis, 0)[start:], 0, a.axis)
    return whole


def _recall(machine: Machine, node: Node, like: Array) -> Array:
    return machine.state.get(machine.state_path(node), np.zeros_like(like))


def _remember(machine: Machine, node: Node, x: Array, state: Array) -> Array:
    machine.state[machine.state_path(node)] = state
    return x


def _running_attend(machine: Machine, node: Node, q: Array, k: Array, v: Array, decay: Array | None) -> Array:
    path = machine.state_path(node)
    y, machine.state[path] = attention.running_attend(q, k, v, decay, machine.state.get(path))
    return y


def _running_sum(machine: Machine, node: Node, x: Array) -> Array:
    a, path = machine.attributes(node), machine.state_path(node)
    before = machine.state.get(path)
    sums = np.cumsum(x, axis=a.axis)
    if before is not None:
        sums = sums + np.expand_dims(before, a.axis)
    machine.state[path] = np.take(sums, -1, axis=a.axis)
    return sums


LOWERINGS: dict[str, Lowering] = {
    "append": _append,
    "recall": _recall,
    "remember": _remember,
    "running_attend": _running_attend,
    "running_sum": _running_sum,
    **{op: _plain(compute) for op, compute in _PLAIN.items()},
    "input": _input,
    "weight": _weight,
    "repeat": _repeat,
    "route": _route,
    "scan": _scan,
}
REFUSED: dict[str, str] = {}
