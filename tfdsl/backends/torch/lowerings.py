"""Op by op, the expression that computes it in PyTorch. `LOWERINGS` is the table; helpers of a few ops stand before it."""

from __future__ import annotations

import re

from tfdsl.backends.torch.arithmetic import table_text
from tfdsl.backends.torch.attention import ATTENTION
from tfdsl.backends.torch.code import COMPARE, JOIN, POWER, PRODUCT, SUM, UNARY, Code, call, infix
from tfdsl.backends.torch.loops import routed
from tfdsl.backends.torch.reshaping import RESHAPING, padded_by_hand
from tfdsl.backends.torch.site import Lowering, Site
from tfdsl.backends.torch.state_lowerings import STATE_LOWERINGS
from tfdsl.ir.dims import Dim
from tfdsl.ir.rearrange import letters

LONGEST_TABLE = 50  # characters of a table that stands where it is used
_CLAMPED = re.compile(r"\.clamp\(min=(-?[\w.]+)\)\Z")


def _call(function: str) -> Lowering:
    return lambda s: call(function, *(s.arg(place) for place in range(len(s.args)) if s.has(place)))


def _linear(s: Site) -> Code:
    if not s.forward.program.decodes:
        return _call("F.linear")(s)
    s.forward.program.use_helper("parallel_linear")
    return _call("parallel_linear")(s)


def _method(name: str) -> Lowering:
    return lambda s: Code(f"{s.atom()}.{name}()")


def _infix(sign: str, level: int) -> Lowering:
    return lambda s: infix(s.code(0), sign, s.code(1), level)


def _along(name: str) -> Lowering:
    """A method over an axis."""

    def lower(s: Site) -> Code:
        keep = ", keepdim=True" if getattr(s.a, "keep", False) else ""
        return Code(f"{s.atom()}.{name}(dim={s.axis(s.a.axis)}{keep})")

    return lower


# --- parameters, where no layer serves -------------------------------------------------------------------------------


def _norm(function: str) -> Lowering:
    def lower(s: Site) -> Code:
        s.settle(0)
        weights = [f"{name}={s.arg(place)}" for place, name in ((1, "weight"), (2, "bias")) if s.has(place)]
        return call(function, s.arg(), f"{s.atom()}.shape[-1:]", *weights, f"eps={s.setting('eps')}")

    return lower


def _group_norm(s: Site) -> Code:
    return call("F.group_norm", s.arg(), s.setting("groups"), s.arg(1), s.arg(2), f"eps={s.setting('eps')}")


def _conv(function: str) -> Lowering:
    def lower(s: Site) -> Code:
        by_hand = padded_by_hand(s)
        parts = [by_hand or s.arg(), s.arg(1), s.arg(2) if s.has(2) else "None"]
        parts += [f"{name}={text}" for name, text in conv_settings(s)]
        return call(function, *parts)

    return lower


def conv_settings(s: Site) -> list[tuple[str, str]]:
    """The settings of a convolution that are not those that it has anyway."""
    found = []
    for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
        value = getattr(s.a, name, usual)
        if name == "padding" and s.node.op == "conv1d" and isinstance(value, tuple):
            value = value[0] if value[0] == value[1] else 0
            found += [(name, str(value))] if value else []
        elif value not in (usual, (usual, usual)):
            found.append((name, s.setting(name)))
    return found


# --- the rest --------------------------------------------------------------------------------------------------------


def _positions(s: Site) -> Code:
    size = s.type().dims[s.a.axis]
    draft = s.forward.draft
    s.settle(0)
    named = isinstance(size, Dim) and size.name is not None and draft.knows(size.name)
    length = draft.symbol(str(size)) if named else f"{s.atom()}.shape[{s.a.axis}]"
    return call("torch.arange", length, f"device={s.atom()}.device")


def _cast(s: Site) -> Code:
    if s.a.to == "float":
        whole = s.type().dtype == "int"
        return Code(f"{s.atom()}.float()" if whole else f"{s.atom()}.to({s.forward.draft.float_type()})")
    return Code(f"{s.atom()}.{'long' if s.a.to == 'int' else 'bool'}()")


def _drop_path(s: Site) -> Code:
    s.forward.program.use_helper("drop_path")
    return call("drop_path", s.arg(), s.setting("p"), s.forward.draft.training())


def _dropout(s: Site) -> Code:
    return call("F.dropout", s.arg(), s.setting("p"), s.forward.draft.training())


def _extreme(name: str, bound: str) -> Lowering:
    """`maximum` and `minimum`; against a plain number, a clamp."""

    def lower(s: Site) -> Code:
        for place in (0, 1):
            if s.forward.is_number(s.node, place) and not s.forward.is_number(s.node, 1 - place):
                x = s.atom(1 - place)
                if bound == "max" and (lower_bound := _CLAMPED.search(x)):
                    return Code(f"{x[: lower_bound.start()]}.clamp({lower_bound[1]}, {s.arg(place)})")
                return Code(f"{x}.clamp({bound}={s.arg(place)})")
        return call(f"torch.{name}", s.arg(0), s.arg(1))

    return lower


def _where(s: Site) -> Code:
    """A choice; of two plain numbers, one must show that they are floats."""
    sides = [s.arg(1), s.arg(2)]
    if s.type(1).dtype == "float" and all(s.forward.is_number(s.node, place) for place in (1, 2)):
        sides = [text if "." in text else f"float({text})" for text in sides]
    return call("torch.where", s.arg(0), *sides)


def _top_k(s: Site) -> Code:
    axis = "" if s.a.axis == len(s.type().dims) - 1 else f", dim={s.a.axis}"
    return Code(f"{s.atom()}.topk({s.size(s.a.k, 'k')}{axis})")


def _one_hot(s: Site) -> Code:
    return Code(f"F.one_hot({s.arg()}, {s.size(s.a.classes, 'classes')}).to({s.forward.draft.float_type()})")


def _dequantize(s: Site) -> Code:
    s.forward.program.use_helper("dequantize")
    return call("dequantize", s.arg(0), s.arg(1))


def _constant(s: Site) -> Code:
    """A number beside tensors: as the spec wrote it, and without a fraction where it is whole."""
    value, numbers = s.a.value, s.forward.numbers
    if isinstance(value, Dim):
        return numbers.size(value, s.node)
    code = numbers.setting(s.node, "value", value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9 and code.text == f"{value}":
        return numbers.setting(s.node, "", int(value))
    return code


def _tensor(s: Site) -> Code:
    """A table where it is short, else the name of one at the top of the file."""
    text = table_text(s.a.values)
    if len(text) > LONGEST_TABLE:
        text = s.forward.program.table(text, s.written_name("values") or "table")
    return call("torch.tensor", text, f"device={s.forward.draft.device()}")


def _statements(s: Site) -> Code:
    """Loops are statements, which stand before what reads them."""
    raise AssertionError("a loop is no expression")


LOWERINGS: dict[str, Lowering] = {
    **ATTENTION,
    **RESHAPING,
    **STATE_LOWERINGS,
    "linear": _linear,
    "embedding": _call("F.embedding"),
    "layer_norm": _norm("F.layer_norm"),
    "rms_norm": _norm("F.rms_norm"),
    "group_norm": _group_norm,
    "conv1d": _conv("F.conv1d"),
    "conv2d": _conv("F.conv2d"),
    "matmul": _infix("@", PRODUCT),
    "einsum": lambda s: call("torch.einsum", f'"{letters(s.a.pattern)}"', *(s.arg(i) for i in range(len(s.args)))),
    "positions": _positions,
    "erf": _call("torch.erf"),
    "exp": _method("exp"),
    "log": _method("log"),
    "sqrt": _method("sqrt"),
    "sin": _method("sin"),
    "cos": _method("cos"),
    "tanh": _call("torch.tanh"),
    "sigmoid": _call("torch.sigmoid"),
    "relu": _call("F.relu"),
    "silu": _call("F.silu"),
    "softplus": _call("F.softplus"),
    "gelu": lambda s: call("F.gelu", s.arg(), *(['approximate="tanh"'] if s.a.approximate else [])),
    "neg": lambda s: Code(f"-{s.code().at(UNARY)}", UNARY),
    "abs": _method("abs"),
    "floor": _method("floor"),
    "add": _infix("+", SUM),
    "sub": _infix("-", SUM),
    "mul": _infix("*", PRODUCT),
    "div": _infix("/", PRODUCT),
    "pow": _infix("**", POWER),
    "floordiv": _infix("//", PRODUCT),
    "mod": _infix("%", PRODUCT),
    "maximum": _extreme("maximum", "min"),
    "minimum": _extreme("minimum", "max"),
    "eq": _infix("==", COMPARE),
    "ne": _infix("!=", COMPARE),
    "lt": _infix("<", COMPARE),
    "le": _infix("<=", COMPARE),
    "gt": _infix(">", COMPARE),
    "ge": _infix(">=", COMPARE),
    "both": _infix("&", JOIN),
    "either": _infix("|", JOIN),
    "negate": lambda s: Code(f"~{s.atom()}", UNARY),
    "where": _where,
    "cast": _cast,
    "dropout": _dropout,
    "drop_path": _drop_path,
    "softmax": _along("softmax"),
    "log_softmax": _along("log_softmax"),
    "sum": _along("sum"),
    "mean": _along("mean"),
    "max": _along("amax"),
    "min": _along("amin"),
    "argmax": _along("argmax"),
    "cumsum": _along("cumsum"),
    "top_k": _top_k,
    "one_hot": _one_hot,
    "iota": lambda s: call("torch.arange", s.size(s.a.size, "size"), f"device={s.forward.draft.device()}"),
    "tensor": _tensor,
    "dequantize": _dequantize,
    "weight": lambda s: Code(s.forward.draft.weight(s.node.attributes["path"])),
    "constant": _constant,
    "input": lambda s: Code(s.node.attributes["name"]),
    "repeat": _statements,
    "scan": _statements,
    "route": routed,
}

REFUSED: dict[str, str] = {
    "prune": "it is computed when the model is built, from weights",
    "quantize": "it is computed when the model is built, from weights",
}
