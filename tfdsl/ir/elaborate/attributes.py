"""The settings of an op: each read as the kind that the op's record declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfdsl.ir import tables
from tfdsl.ir.elaborate.arithmetic import is_number, is_size
from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.causes import causes_of
from tfdsl.ir.elaborate.functions import INITIALIZERS
from tfdsl.ir.elaborate.values import Fault, Given, MaskValue, Range, Tensor, kind_of
from tfdsl.ir.graph import Initializer
from tfdsl.ir.op import Attribute, Op
from tfdsl.language.diagnostics import Span, did_you_mean

MOST_PARTS = 1024  # each is a value of the graph
_KNOWN_BY_WEIGHT = {
    "linear": ("out",),
    "embedding": ("size", "dim"),
}  # settings that a weight that is given makes plain
DTYPES = ("float", "int", "bool")


def read(
    body: Body, op: Op, given: Mapping[str, Given], operands: Sequence[Tensor | None], span: Span
) -> dict[str, Any]:
    """The op's attributes from what was given; raises a fault for an unknown, missing or mistyped one."""
    filled: dict[str, Any] = {}
    free = next((a for a in op.attributes if a.kind == "names"), None)
    names: dict[str, Any] = {}
    for name, each in given.items():
        attribute = op.attribute(name)
        if attribute is not None and attribute.kind != "names" and name != "path":
            filled[name] = _value(attribute, each, operands)
        elif free is not None:
            names[name] = _value(free, each, operands)
        else:
            known = [a.name for a in op.attributes] + [o.name for o in op.operands if o.optional]
            help_ = did_you_mean(name, known, op.signature())
            raise Fault("T302", f"{op.name} has no setting `{name}`", each.at, help=help_)
    if free is not None and names:
        filled[free.name] = tuple(sorted(names.items()))
    gives_weight = any(o.name == "weight" and t is not None for o, t in zip(op.operands, operands, strict=False))
    known_by_weight = _KNOWN_BY_WEIGHT.get(op.name, ()) if gives_weight else ()
    for attribute in op.attributes:
        if attribute.required and attribute.name not in (*filled, *known_by_weight):
            raise Fault("T302", f"{op.name} needs `{attribute.name}`", span, help=op.signature())
        if attribute.kind == "axis" and attribute.name not in filled and operands and operands[0] is not None:
            filled[attribute.name] = attribute.default + len(operands[0].type.dims)
            if filled[attribute.name] < 0:
                raise Fault("T401", f"{op.name} needs more axes than {operands[0].type} has", span)
    return filled


def _value(attribute: Attribute, given: Given, operands: Sequence[Tensor | None]) -> Any:
    try:
        return _READ[attribute.kind](attribute, given, operands)
    except Fault as fault:
        raise fault.because(causes_of(given)) from None


def axis(given: Given, rank: int) -> int:
    """An axis counted from the first; negative ones count from the last."""
    value = given.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise Fault("T301", f"an axis is a whole number, not {kind_of(value)}", given.span)
    if not -rank <= value < rank:
        raise Fault("T401", f"axis {value} is outside a tensor of {rank} axes", given.span)
    return value % rank


def constrain(body: Body, op: Op, operands: Sequence[Tensor | None], filled: dict[str, Any], span: Span) -> None:
    """Settings that count from the end of an axis, made to count from its start; and what they need of its size."""
    if op.name not in ("slice", "select"):
        return
    assert operands[0] is not None
    size = operands[0].type.dims[filled["axis"]]
    for name in ("start", "stop", "index"):
        value = filled.get(name)
        if (
            isinstance(value, int)
            and value < 0
            and not (op.name == "select" and isinstance(size, int) and size + value < 0)
        ):
            filled[name] = size + value
            if not isinstance(size, int):
                body.session.constrain(">=", size, -value, f"{op.name} counts {-value} from the end", span)
        elif value is not None and not isinstance(size - value, int):
            least = value + 1 if name == "index" else value
            body.session.constrain(">=", size, least, f"{op.name} reaches {value}", span)


def _wrong(attribute: Attribute, need: str, given: Given, help: str = "") -> Fault:
    return Fault("T301", f"`{attribute.name}` is {need}, not {kind_of(given.value)}", given.span, help=help)


def _whole_help(value: Any) -> str:
    if isinstance(value, Range):
        return "ranges belong in the `deploy` section of a plan"
    return "floor, ceil, round and int make whole numbers" if isinstance(value, float) else ""


def _size(attribute: Attribute, given: Given, operands: Any) -> Any:
    if not is_size(given.value):
        raise _wrong(attribute, "a size", given, _whole_help(given.value))
    negative_allowed = attribute.name in ("start", "stop", "index")
    zero_allowed = attribute.name in ("before", "after")
    if isinstance(given.value, int) and given.value < (0 if zero_allowed else 1) and not negative_allowed:
        raise Fault("T304", f"`{attribute.name}` is a size above zero, not {given.value}", given.span)
    return given.value


def _int(attribute: Attribute, given: Given, operands: Any) -> Any:
    value = given.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(attribute, "a whole number", given, _whole_help(value))
    if value < 1 and attribute.name != "shift":
        raise Fault("T304", f"`{attribute.name}` is a whole number above zero, not {value}", given.span)
    if attribute.name == "parts" and value > MOST_PARTS:
        raise Fault("T304", f"`parts` is at most {MOST_PARTS:,}, not {value:,}", given.span)
    return value


def _ints(attribute: Attribute, given: Given, operands: Any) -> Any:
    value = given.value
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, bool) or not isinstance(each, int):
            raise _wrong(attribute, "a whole number, or a list of them", given)
        if each < (0 if attribute.name == "padding" else 1):
            raise Fault("T304", f"`{attribute.name}` cannot be {each}", given.span)
    if isinstance(value, tuple) and len(value) != 2:
        raise Fault("T302", f"`{attribute.name}` is one number or a list of two, not of {len(value)}", given.span)
    return value


def _sizes(attribute: Attribute, given: Given, operands: Any) -> Any:
    value = given.value
    if not isinstance(value, tuple) or not all(is_size(each) for each in value):
        raise _wrong(attribute, "a list of sizes", given)
    for each in value:
        if isinstance(each, int) and each < 1:
            raise Fault("T304", f"`{attribute.name}` is of sizes above zero, not {each}", given.span)
    if len(value) > 8:
        raise Fault("T304", f"`{attribute.name}` has {len(value)} axes, and tensors have at most 8", given.span)
    return value


def _number(attribute: Attribute, given: Given, operands: Any) -> Any:
    if given.value is None and attribute.default is None:
        return None
    if not is_number(given.value):
        raise _wrong(attribute, "a number", given)
    if given.value < 0 and attribute.name in ("drop", "p", "eps", "softcap"):
        raise Fault("T304", f"`{attribute.name}` cannot be negative", given.span)
    if attribute.name in ("drop", "p") and given.value >= 1:
        raise Fault("T304", f"`{attribute.name}` is a probability below 1, not {given.value}", given.span)
    if given.value == 0 and attribute.name == "softcap":
        raise Fault("T304", "`softcap` cannot be zero", given.span)
    return float(given.value)


def _numbers(attribute: Attribute, given: Given, operands: Any) -> Any:
    """Lists in lists of numbers, all floats if one is, or of true and false."""
    if not isinstance(given.value, tuple):
        raise _wrong(attribute, "a list of numbers", given)
    try:
        tables.shape(given.value)
        kinds = set()
        for each in tables.numbers(given.value):
            if not isinstance(each, bool) and not is_number(each):
                raise _wrong_item(attribute, each, given)
            kinds.add(type(each))
        table = tables.changed(given.value, float) if kinds == {int, float} else given.value
        tables.dtype(table)
    except ValueError as error:
        raise Fault("T304", f"`{attribute.name}` makes no tensor: {error}", given.span) from None
    return table


def _wrong_item(attribute: Attribute, item: Any, given: Given) -> Fault:
    help_ = "concat joins tensors" if isinstance(item, Tensor) else ""
    message = f"`{attribute.name}` is a list of numbers, and holds {kind_of(item)}"
    return Fault("T301", message, given.span, help=help_)


def _bool(attribute: Attribute, given: Given, operands: Any) -> Any:
    if not isinstance(given.value, bool):
        word = {0: "false", 1: "true"}.get(given.value) if isinstance(given.value, int) else None
        raise _wrong(attribute, "true or false", given, f"{attribute.name}={word}" if word else "")
    return given.value


def _string(attribute: Attribute, given: Given, operands: Any) -> Any:
    if not isinstance(given.value, str):
        raise _wrong(attribute, "a string", given)
    if attribute.name == "to" and given.value not in DTYPES:
        raise Fault(
            "T304", f'"{given.value}" is no element type', given.span, help=" or ".join(f'"{d}"' for d in DTYPES)
        )
    return given.value


def _axis(attribute: Attribute, given: Given, operands: Sequence[Tensor | None]) -> Any:
    rank = len(operands[0].type.dims) if operands and operands[0] is not None else 0
    return axis(given, rank)


def _mask(attribute: Attribute, given: Given, operands: Any) -> Any:
    if given.value is None:
        return None
    if not isinstance(given.value, MaskValue):
        help_ = "a bool tensor goes to `allowed`" if isinstance(given.value, Tensor) else ""
        raise Fault("T301", f"`mask` is a mask, not {kind_of(given.value)}", given.span, help=help_)
    return given.value


def _initializer(attribute: Attribute, given: Given, operands: Any) -> Any:
    if not isinstance(given.value, Initializer):
        quoted = isinstance(given.value, str) and given.value.partition("(")[0] in INITIALIZERS
        help_ = f"without the quotes: {attribute.name}={given.value}" if quoted else f"{attribute.name}=normal(0.02)"
        raise _wrong(attribute, "an initialiser", given, help_)
    return given.value


_READ: dict[str, Callable[[Attribute, Given, Any], Any]] = {
    "size": _size,
    "names": _size,
    "sizes": _sizes,
    "int": _int,
    "ints": _ints,
    "number": _number,
    "numbers": _numbers,
    "bool": _bool,
    "string": _string,
    "axis": _axis,
    "mask": _mask,
    "initializer": _initializer,
}
