"""Functions of numbers, initialisers and mask constructors: the calls of the language that make no node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tfdsl.ir import dims, masks
from tfdsl.ir.dims import Dim
from tfdsl.ir.elaborate.arithmetic import bounded, is_number, is_size
from tfdsl.ir.elaborate.values import Fault, MaskValue, Tensor, kind_of
from tfdsl.ir.graph import Initializer
from tfdsl.language.diagnostics import Span

MOST_TERMS = 64  # of a mask
MOST_RANDOM = 64  # blocks: each is worked out by itself


def _whole(function: Callable[[float], float]) -> Callable[[float], int]:
    return lambda x: int(function(x))


def _int(value: float) -> int:
    if value != int(value):
        raise ValueError(f"{value:g} is not whole; floor, ceil and round make it so")
    return int(value)


# Functions of numbers. The same names applied to tensors are ops.
NUMBERS: dict[str, tuple[int, Callable[..., Any]]] = {
    "sqrt": (1, math.sqrt),
    "exp": (1, math.exp),
    "log": (1, math.log),
    "sin": (1, math.sin),
    "cos": (1, math.cos),
    "tanh": (1, math.tanh),
    "abs": (1, abs),
    "floor": (1, _whole(math.floor)),
    "ceil": (1, _whole(math.ceil)),
    "round": (1, _whole(round)),
    "int": (1, _int),
    "float": (1, float),
    "min": (2, min),
    "max": (2, max),
    "minimum": (2, min),
    "maximum": (2, max),
}
_SIZES: dict[str, Callable[..., Any]] = {
    "min": dims.minimum,
    "minimum": dims.minimum,
    "max": dims.maximum,
    "maximum": dims.maximum,
}

# Initialisers: how many numbers each may take, and their defaults.
INITIALIZERS: dict[str, tuple[float | None, ...]] = {
    "zeros": (),
    "ones": (),
    "constant": (None,),
    "normal": (0.02,),
    "trunc_normal": (0.02,),
    "uniform": (None,),
    "xavier_uniform": (1.0,),
    "xavier_normal": (1.0,),
    "kaiming_uniform": (1.0,),
    "kaiming_normal": (1.0,),
}


def number_function(name: str, values: list[Any], span: Span) -> Any:
    """Apply a function of numbers."""
    if name == "len":
        if len(values) != 1 or not isinstance(values[0], tuple):
            raise Fault("T301", "len takes one list", span)
        return len(values[0])
    count, function = NUMBERS[name]
    if len(values) != count:
        raise Fault("T302", f"{name} takes {count} number{'s' if count > 1 else ''}, not {len(values)}", span)
    if any(isinstance(value, Dim) for value in values):
        if name in _SIZES and all(is_size(value) for value in values):
            try:
                return _SIZES[name](*values)
            except dims.DimError as error:
                raise Fault("T405", str(error), span) from None
        raise Fault("T306", f"{name} of a size that only run time knows", span)
    for value in values:
        if not is_number(value):
            raise Fault("T301", f"{name} takes numbers, not {kind_of(value)}", span)
    try:
        return bounded(function(*values), span)
    except (ValueError, OverflowError) as error:
        text = str(error) if "whole" in str(error) else f"{name}({', '.join(str(v) for v in values)}) has no value"
        raise Fault("T303", text, span) from None


def initializer(name: str, values: list[Any], span: Span) -> Initializer:
    """`normal(0.02)`; an initialiser without its numbers takes its defaults."""
    defaults = INITIALIZERS[name]
    if len(values) > len(defaults):
        most = f"at most {len(defaults)} number{'s' if len(defaults) != 1 else ''}" if defaults else "no numbers"
        help_ = f"{name}({defaults[0] or 0.1}): its one number is the spread" if defaults and name != "constant" else ""
        raise Fault("T302", f"{name} takes {most}, not {len(values)}", span, help=help_)
    filled = [*values, *defaults[len(values) :]]
    for value in filled:
        if value is None:
            raise Fault("T302", f"{name} needs a number", span, help=f"{name}(0.1)")
        if not is_number(value):
            raise Fault("T301", f"{name} takes numbers, not {kind_of(value)}", span)
        if value < 0 and name != "constant":
            raise Fault("T304", f"{name} takes a spread, which is not negative", span)
    return Initializer(name, tuple(float(value) for value in filled))


def mask(name: str, values: list[Any], span: Span) -> MaskValue:
    """`window(4096)`, `padding(keep)`."""
    kind = masks.KINDS[name]
    wanted = len(kind.arguments) + (kind.operand is not None)
    if len(values) != wanted:
        names = ", ".join((*kind.arguments, *([kind.operand] if kind.operand else [])))
        if not values:
            raise Fault("T302", f"{name} needs ({names})", span, help=f"{name}({'4096' if kind.arguments else names})")
        wants = f"takes ({names})" if names else "takes nothing"
        raise Fault("T302", f"{name} {wants}, and is given {len(values)}", span)
    if kind.each and isinstance(values[0], Tensor):
        return _mask_for_each(name, values[0], span)
    if kind.operand is not None:
        tensor = values[0]
        if not isinstance(tensor, Tensor) or len(tensor.type.dims) not in (1, 2):
            raise Fault("T301", f"{name} takes a tensor [batch, positions], not {kind_of(tensor)}", span)
        if tensor.type.dtype != ("bool" if name == "padding" else "int"):
            need = "a bool tensor (`keep != 0` makes one)" if name == "padding" else "an int tensor"
            raise Fault("T403", f"{name} takes {need}, not {kind_of(tensor)}", span)
        return MaskValue(masks.Term(name, (), 0), (tensor,))
    for argument, value in zip(kind.arguments, values, strict=True):
        least = 0 if argument == "seed" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            wants = "above zero" if least else "from zero on"
            raise Fault("T304", f"the {argument} of {name} is a whole number {wants}, not {kind_of(value)}", span)
    if name == "random_blocks" and values[0] > MOST_RANDOM:
        raise Fault("T304", f"random_blocks gives at most {MOST_RANDOM} blocks, not {values[0]:,}", span)
    return MaskValue(masks.Term(name, tuple(values)))


def _mask_for_each(name: str, tensor: Tensor, span: Span) -> MaskValue:
    """A mask with a number for each example of a batch: `prefix(lengths)`."""
    if len(tensor.type.dims) != 1 or tensor.type.dtype != "int":
        raise Fault("T301", f"{name} takes a whole number or an int tensor [batch], not {kind_of(tensor)}", span)
    return MaskValue(masks.Term(name, (), 0), (tensor,))


def join_masks(operator: str, left: MaskValue, right: MaskValue, span: Span) -> MaskValue:
    if sum(1 for side in (left, right) for _ in masks.terms(side.mask)) > MOST_TERMS:
        raise Fault("T304", f"a mask has at most {MOST_TERMS} terms", span)
    joined = masks.Joined(operator, left.mask, masks.shift_operands(right.mask, len(left.operands)))
    return MaskValue(masks.simplify(joined), (*left.operands, *right.operands))
