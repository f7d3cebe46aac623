"""How parameters begin: statements of `torch.nn.init`, written once for layers that begin alike."""

from __future__ import annotations

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
            grouped = _grouped(spelled)
            bounds = {"low": f"-2 * {grouped}", "high": f"2 * {grouped}", "below": f"-{grouped}"}
        return "nn.init." + _IN_TORCH[kind].format(target="{target}", spread=spread, **bounds)
    plain = value == 1.0 and spelled is None
    gain = "" if plain else spelled or number(value)
    if kind.startswith("xavier") and len(dims) >= 2:
        return f"nn.init.{kind}_({{target}}{'' if plain else f', gain={gain}'})"
    if kind.startswith("kaiming") and len(dims) >= 2 and plain:
        return f'nn.init.{kind}_({{target}}, nonlinearity="linear")'
    return _by_fan_in(kind, len(dims), "" if plain else f"{_grouped(gain)} * ")


def _by_fan_in(kind: str, rank: int, gain: str) -> str:
    """Initialisers that `torch.nn.init` lacks, or lacks for such a shape; both fans of a vector are its length."""
    fan = "{target}[0].numel()" if rank >= 2 else "{target}.numel()"
    if kind.endswith("normal"):
        return f"nn.init.normal_({{target}}, std={gain}{fan} ** -0.5)"
    bound = f"{gain}(3 / {fan}) ** 0.5"
    return f"nn.init.uniform_({{target}}, -{bound}, {bound})"


def _grouped(code: str) -> str:
    """Code that a sign or a factor may stand before."""
    return code if code.replace(".", "").replace("_", "").isalnum() else f"({code})"


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
