"""How parameters begin: statements of `torch.nn.init`, written once for layers that begin alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfdsl.backends.torch.arithmetic import number
from tfdsl.backends.torch.code import tuple_of
from tfdsl.ir.graph import Initializer

_IN_TORCH = {
    "zeros": "zeros_({target})",
    "ones": "ones_({target})",
    "constant": "constant_({target}, {spread})",
    "normal": "normal_({target}, std={spread})",
    "trunc_normal": "trunc_normal_({target}, std={spread}, a={low}, b={high})",
    "uniform": "uniform_({target}, {below}, {spread})",
}


@dataclass(frozen=True)
class Beginning:
    """How one parameter begins: `statement` has `{target}` where the parameter stands."""

    holder: str  # the module that has it, as source
    name: str
    target: str
    statement: str


def statement_of(initializer: Initializer, dims: Sequence[int], spelled: str | None) -> str:
    """The statement for an initialiser, with `{target}` for the parameter; `spelled` is its number as the spec has it."""
    kind = initializer.kind
    spelled = spelled if spelled is not None and any(each.isalpha() and each != "e" for each in spelled) else None
    value = initializer.arguments[0] if initializer.arguments else 1.0
    if kind in _IN_TORCH:
        spread = spelled or number(value)
        bounds = {"low": number(-2 * value), "high": number(2 * value), "below": number(-value)}
        if spelled is not None:
            grouped = spelled if spelled.replace(".", "").isidentifier() else f"({spelled})"
            bounds = {"low": f"-2 * {grouped}", "high": f"2 * {grouped}", "below": f"-{grouped}"}
        return "nn.init." + _IN_TORCH[kind].format(target="{target}", spread=spread, **bounds)
    if kind.startswith("xavier") and len(dims) >= 2:
        gain = "" if value == 1.0 else f", gain={spelled or number(value)}"
        return f"nn.init.{kind}_({{target}}{gain})"
    if kind.startswith("kaiming") and len(dims) >= 2 and value == 1.0:
        return f'nn.init.{kind}_({{target}}, nonlinearity="linear")'
    return _spread(initializer, dims)


def _spread(initializer: Initializer, dims: Sequence[int]) -> str:
    """Initialisers that `torch.nn.init` lacks, or lacks for such a shape, as the numbers they come to."""
    field_size = math.prod(dims[2:])
    fan_in = dims[1] * field_size if len(dims) > 1 else dims[0]
    fan_out = dims[0] * field_size
    gain = initializer.arguments[0] if initializer.arguments else 1.0
    total = fan_in + fan_out if initializer.kind.startswith("xavier") else fan_in
    share = 2.0 if initializer.kind.startswith("xavier") else 1.0
    deviation = gain * math.sqrt(share / total)
    if initializer.kind.endswith("normal"):
        return f"nn.init.normal_({{target}}, std={number(deviation)})"
    bound = deviation * math.sqrt(3.0)
    return f"nn.init.uniform_({{target}}, {number(-bound)}, {number(bound)})"


def default_of(op: str | None, name: str) -> Initializer | None:
    """What `torch.nn` itself begins a parameter of a layer with, where that is one of our initialisers."""
    if op in ("layer_norm", "rms_norm", "group_norm"):
        return Initializer("ones") if name == "weight" else Initializer("zeros")
    return None


def statements(beginnings: Sequence[Beginning], variable: str) -> list[str]:
    """The statements for parameters; a `for` over `variable` where several layers begin alike."""
    holders: dict[str, list[Beginning]] = {}
    for each in beginnings:
        holders.setdefault(each.holder, []).append(each)
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for holder, parameters in holders.items():
        pattern = tuple((each.name, each.statement) for each in parameters)
        grouped = "." in holder and all(each.target == f"{holder}.{each.name}" for each in parameters)
        alike.setdefault(pattern if grouped else (*pattern, (holder, "")), []).append(holder)
    lines: list[str] = []
    for pattern, names in alike.items():
        if len(names) > 1 and len(pattern) * len(names) > len(pattern) + 1:
            lines.append(f"for {variable} in {tuple_of(names)}:")
            lines += [f"    {text.format(target=f'{variable}.{name}')}" for name, text in pattern]
        else:
            lines += [each.statement.format(target=each.target) for name in names for each in holders[name]]
    return lines
