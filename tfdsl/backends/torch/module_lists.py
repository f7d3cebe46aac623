"""The turns of a loop as modules: `nn.ModuleList(Layer(width) for _ in range(depth))`, or row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tfdsl.backends.torch.arithmetic import number
from tfdsl.backends.torch.names import class_name
from tfdsl.backends.torch.provenance import frame_of
from tfdsl.backends.torch.settings import sees
from tfdsl.language.diagnostics import one

if TYPE_CHECKING:
    from tfdsl.backends.torch.constructors import Constructor

_MODEST = ("h", "layer", "layers", "block", "blocks")  # names of loops that say nothing


def list_of_turns(c: Constructor, path: str) -> str:
    """One comprehension where all turns are made alike, else a row for each run of like turns."""
    others = [each for each in c.places.children(path) if not each.startswith("*")]
    layer = c.places.layer(path)
    if others or layer is not None:
        held = others[0] if others else next(iter(layer.weights if layer else ()))
        message = f"torch: the turns of `{path}` are a list, and a list cannot hold `{held}` too"
        raise one("T706", message, c.span(path), help="name the loop or the layer otherwise")
    elements, base = c.places.elements(path), _turn_name(c, path)
    unit, loop = c.program.loops[path]
    index = loop.attributes.get("index") or ""
    variable = c.variable(c.program.words(index), "turn") if index else "_"
    calls = {kind: c.instance(kind, base, **{index: variable}) for kind in dict.fromkeys(elements)}
    written = loop.spelled.get("turns") if frame_of(unit, loop) is unit.frame and sees(c.unit, unit) else None
    if len({*calls.values()}) == 1:
        reads = any(_reads(c, kind, base, index) for kind in calls)
        count = c.spelled(written, len(elements)) or number(len(elements))
        return f"nn.ModuleList({calls[elements[0]]} for {variable if reads else '_'} in range({count}))"
    if written is not None:
        c.program.settings.fix(c.unit, written)
    found: list[str] = []
    for start, stop in _runs(elements):
        kind = elements[start]
        if stop - start == 1:
            found.append(c.instance(kind, base, **{index: str(start)}))
        elif _reads(c, kind, base, index):
            found.append(f"*({calls[kind]} for {variable} in range({start}, {stop}))")
        else:
            found.append(f"*({calls[kind]} for _ in range({stop - start}))")
    return f"nn.ModuleList([{', '.join(found)}])"


def rows(elements: Sequence[str]) -> str:
    """Modules of a list, said once if they are all made alike."""
    if len(elements) > 1 and all(each == elements[0] for each in elements):
        return f"{elements[0]} for _ in range({len(elements)})"
    return f"[{', '.join(elements)}]"


def _reads(c: Constructor, path: str, base: str, index: str) -> bool:
    return index in c.class_at(path, base).settled.given


def _turn_name(c: Constructor, path: str) -> str:
    """What the class of a turn is called: after the block around the loop, and the loop if its name says something."""
    name = path.rpartition(".")[2]
    owner = class_name(c.places.unit(c.places.elements(path)[0]).frame.block)
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
