"""Words in the emitted source: what goes in and out of a class or a function, in the shapes of the spec."""

from __future__ import annotations

from collections.abc import Sequence

from tfdsl.backends.torch.dimensions import size_code
from tfdsl.backends.torch.layout import WIDEST
from tfdsl.backends.torch.provenance import Provenance, plain_name
from tfdsl.backends.torch.settings import unique_name
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Value
from tfdsl.language import syntax


def docstring(unit: Unit, parameters: Sequence[str], provenance: Provenance, indent: str) -> list[str]:
    """The docstring of a unit: each input with its shape, and the shapes of the results."""
    declared = _declared(unit)
    inputs = [
        f"{name} {declared.get(value) or _shape(unit, value, provenance)}"
        for name, value in zip(parameters, unit.inputs, strict=True)
    ]
    results = _results(unit, provenance)
    text = f"{', '.join(inputs)} -> {', '.join(results)}." if inputs else f"{', '.join(results)}."
    line = f'{indent}"""{text}"""'
    if len(line) <= WIDEST:
        return [line]
    ends = [f"{each}," for each in inputs[:-1]] + inputs[-1:]
    lines = [f'{indent}"""{ends[0]}' if ends else f'{indent}"""', *(f"{indent}{each}" for each in ends[1:])]
    return [*lines, f"{indent}-> {', '.join(results)}.", f'{indent}"""']


def _declared(unit: Unit) -> dict[Value, str]:
    """The shapes of inputs as the signature has them."""
    declaration = unit.frame.declaration
    if declaration is None or unit.is_turn:
        return {}
    shapes = {each.name.text: _written(each.type) for each in declaration.inputs}
    found: dict[Value, str] = {}
    for name, value in unit.frame.arguments.items():
        if name in shapes:
            found.setdefault(value, shapes[name])
    return found


def _written(declared: syntax.TensorType) -> str:
    """A shape as it is written."""
    return _typed(declared, _extents(declared))


def _extents(declared: syntax.TensorType) -> list[str]:
    return [" ".join(each.span.text.split()) for each in declared.extents]


def _typed(declared: syntax.TensorType, extents: Sequence[str]) -> str:
    return f"{declared.dtype.text if declared.dtype else ''}[{', '.join(extents)}]"


def _results(unit: Unit, provenance: Provenance) -> list[str]:
    declaration = unit.frame.declaration
    declared = declaration.outputs if declaration and not unit.is_turn else ()
    if unit.is_root and len(declared) >= len(unit.results):  # a decoder gives the first alone
        pairs = zip(declared, unit.results, strict=False)
        return [(f"{each.name.text} " if each.name else "") + _shown(unit, each.type, value) for each, value in pairs]
    if len(declared) == len(unit.results) == 1:
        return [_written(declared[0].type)]
    return [_shape(unit, value, provenance) for value in unit.results]


def _shown(unit: Unit, declared: syntax.TensorType, value: Value) -> str:
    """A shape as it is written, but for an axis that has been cut to one position."""
    extents, dims = _extents(declared), unit.graph.type(value).dims
    if len(extents) == len(dims):
        open_ = {name for name, size in unit.names.items() if isinstance(size, Dim)}
        pairs = zip(extents, dims, strict=True)
        extents = ["1" if size == 1 and text in open_ else text for text, size in pairs]
    return _typed(declared, extents)


def _shape(unit: Unit, value: Value, provenance: Provenance) -> str:
    """The shape of a value, in names where they are known."""
    type_ = unit.graph.type(value)
    sizes = provenance.of(unit).dims(value)
    shown = [_name(unit, size, known) for size, known in zip(sizes, type_.dims, strict=True)]
    return f"{'' if type_.dtype == 'float' else type_.dtype}[{', '.join(shown)}]"


def _name(unit: Unit, size: Size, known: Size) -> str:
    if isinstance(known, Dim):
        return size_code(known, str).text
    return plain_name(size) or unique_name(list(unit.names.items()), known) or str(known)
