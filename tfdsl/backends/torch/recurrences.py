"""`scan` in the emitted source: a `for` over positions that carries states and keeps what each step gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfdsl.backends.torch.code import call
from tfdsl.backends.torch.loops import enter
from tfdsl.ir.graph import Node, Value
from tfdsl.ir.ops import OPS

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward


def write_scan(forward: Forward, node: Node) -> None:
    """The statements of a recurrence; its last states and stacked results end in variables."""
    a = OPS["scan"].fill(node.attributes)
    unit = forward.program.region_unit(node.bodies[0])
    for value in node.inputs[a.carried :]:
        assert value is not None
        forward.settle(value)  # once, and not at every position
    states = enter(forward, node, a.carried)
    outer = [forward.tensor_code(value) for value in node.inputs[a.carried :] if value is not None]
    kept = [Value(node.id, number) for number in range(a.carried, len(node.types))]
    kept = [value for value in kept if forward.variables.uses(value)]
    rows = {value: forward.variables.fresh(f"{forward.temporaries.label(value) or 'y'}s") for value in kept}
    for name in rows.values():
        forward.line(f"{name} = []")
    slices = unit.inputs[a.carried : a.carried + a.scanned]
    here = [forward.variables.fresh(unit.graph.node(value).attributes["name"]) for value in slices]
    along = [f"{text}.unbind({a.axis})" for text in outer[: a.scanned]]
    together = along[0] if len(along) == 1 else call("zip", *along).text
    forward.line(f"for {', '.join(here)} in {together}:")
    _write_step(forward, node, states, [*here, *outer[a.scanned :]], rows)
    for value in node.inputs[a.carried :]:
        if value is not None:
            forward.variables.spend(value)
    for name in here:
        forward.variables.release(name)
    for number, name in enumerate(states):
        forward.hold(name, Value(node.id, number))
    for value, name in rows.items():
        stacked = forward.bind(value, *forward.temporaries.names(value))
        forward.line(f"{stacked} = torch.stack({name}, dim={a.axis})")
        forward.variables.release(name)


def _write_step(forward: Forward, node: Node, states: list[str], given: list[str], rows: dict[Value, str]) -> None:
    """The statements of a step, over the variables of the states."""
    unit = forward.program.region_unit(node.bodies[0])
    inner = forward.inside(unit, "    ")
    for value, name in zip(unit.inputs, states, strict=False):
        inner.hold(name, value)
    for value, text in zip(unit.inputs[len(states) :], given, strict=True):
        inner.capture(value, text)
    inner.count()
    inner.run()
    results = [inner.whole(value) for value in unit.results]
    for value, name in rows.items():
        inner.line(f"{name}.append({results[value.index]})")
    moved = [(name, text) for name, text in zip(states, results, strict=False) if name != text]
    if moved:
        inner.line(f"{', '.join(name for name, _ in moved)} = {', '.join(text for _, text in moved)}")
    forward.lines += inner.lines
