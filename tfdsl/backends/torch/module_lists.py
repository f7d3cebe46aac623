"""The turns of a loop as modules: `nn.ModuleList(Layer(width) for _ in range(depth))`, in turns, or row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tfdsl.backends.torch.arithmetic import number
from tfdsl.backends.torch.names import class_name
from tfdsl.backends.torch.settings import sees
from tfdsl.backends.torch.structure import Unit
from tfdsl.language import syntax
from tfdsl.language.diagnostics import one

if TYPE_CHECKING:
    from tfdsl.backends.torch.constructors import Constructor

_MODEST = ("h", "layer", "layers", "block", "blocks")  # names of loops that say nothing
_LONGEST_PERIOD = 8


def list_of_turns(c: Constructor, path: str) -> str:
    """One comprehension where turns are made alike or differ in a fixed rhythm, else a row for each run of like turns."""
    _refuse_others(c, path)
    elements, base = c.places.elements(path), _turn_name(c, path)
    unit, loop = c.program.loops[path]
    index = loop.attributes.get("index") or ""
    variable = c.variable(c.program.words(index), "turn") if index else "_"
    calls = {kind: c.instance(kind, base, **{index: variable}) for kind in dict.fromkeys(elements)}
    reads = any(_reads(c, kind, base, index) for kind in calls)
    made = [calls[kind] for kind in elements]
    period = next((p for p in range(1, _LONGEST_PERIOD + 1) if made[p:] == made[:-p]), 0)
    written = unit.expression(loop, "turns") if sees(c.unit, unit) else None
    if period == 1 or (period and 2 * period <= len(made) and len({*made}) == 2):
        goes_on = period == 1 or _follows_remainder(unit, path, index, period)
        if not goes_on:
            c.program.settings.fix(c.unit, written)
        count = (c.spelled(written, len(made)) if goes_on else None) or number(len(made))
        each = _in_rhythm(made[:period], variable)
        return f"nn.ModuleList({each} for {variable if reads or period > 1 else '_'} in range({count}))"
    c.program.settings.fix(c.unit, written)
    rows: list[str] = []
    for start, stop in _runs(elements):
        kind = elements[start]
        if stop - start == 1:
            rows.append(c.instance(kind, base, **{index: str(start)}))
        elif _reads(c, kind, base, index):
            rows.append(f"*({calls[kind]} for {variable} in range({start}, {stop}))")
        else:
            rows.append(f"*({calls[kind]} for _ in range({stop - start}))")
    return f"nn.ModuleList([{', '.join(rows)}])"


def rows_of(elements: Sequence[str]) -> str:
    """Modules of a list, said once if they are all made alike."""
    if len(elements) > 1 and all(each == elements[0] for each in elements):
        return f"{elements[0]} for _ in range({len(elements)})"
    return f"[{', '.join(elements)}]"


def _refuse_others(c: Constructor, path: str) -> None:
    """A list of modules holds nothing else."""
    others = [each for each in c.places.children(path) if not each.startswith("*")]
    layer = c.places.layer(path)
    if others or layer is not None:
        held = others[0] if others else next(iter(layer.weights if layer else ()))
        message = f"torch: the turns of `{path}` are a list, and a list cannot hold `{held}` too"
        raise one("T709", message, c.span(path), help="name the loop or the layer otherwise")


def _in_rhythm(made: Sequence[str], variable: str) -> str:
    """What a turn is, by the remainder of its number."""
    if len(made) == 1:
        return made[0]
    rare = min({*made}, key=lambda each: (made.count(each), made.index(each)))
    other = next(each for each in made if each != rare)
    remainders = [str(place) for place, each in enumerate(made) if each == rare]
    test = f"== {remainders[0]}" if len(remainders) == 1 else f"in ({', '.join(remainders)})"
    return f"{rare} if {variable} % {len(made)} {test} else {other}"


def _follows_remainder(unit: Unit, path: str, index: str, period: int) -> bool:
    """Whether the spec tells turns apart by nothing but remainders of their number, so that more turns go on alike."""
    declaration, name = unit.frame.declaration, path.rpartition(".")[2]
    loops = [each for part in (declaration.body if declaration else ()) for each in part.walk()]
    statement = next((each for each in loops if isinstance(each, syntax.Repeat) and each.name.text == name), None)
    if statement is None:
        return False
    trees = [each for part in statement.body for each in part.walk()]
    uses = sum(isinstance(each, syntax.Path) and each.parts[0].text == index for each in trees)
    divisors = [
        each.right.value
        for each in trees
        if isinstance(each, syntax.Binary)
        and each.operator == "%"
        and isinstance(each.left, syntax.Path)
        and each.left.text == index
        and isinstance(each.right, syntax.Number)
    ]
    return len(divisors) == uses > 0 and math.lcm(*map(int, divisors)) == period


def _reads(c: Constructor, path: str, base: str, index: str) -> bool:
    return index in c.class_at(path, base).settled.given


def _turn_name(c: Constructor, path: str) -> str:
    """What the class of a turn is called: after the block around the loop, and the loop if its name says something."""
    name, unit = path.rpartition(".")[2], c.places.unit(c.places.elements(path)[0])
    owner = class_name(unit.frame.block)
    if not unit.is_turn:
        return owner
    if name in _MODEST:
        return f"{owner}{'Block' if name.startswith('block') else 'Layer'}"
    return f"{owner}{class_name(name)}Layer"


def _runs(elements: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The stretches of like turns, as start and stop."""
    start = 0
    for stop in range(1, len(elements) + 1):
        if stop == len(elements) or elements[stop] != elements[start]:
            yield start, stop
            start = stop
