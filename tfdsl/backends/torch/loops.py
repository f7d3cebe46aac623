"""`repeat` in the emitted source: a `ModuleList` to run through, or a plain `for` where the turns own no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfdsl.backends.torch import structure
from tfdsl.backends.torch.names import identifier
from tfdsl.ir.graph import Node, Value

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward


def write_loop(forward: Forward, node: Node) -> None:
    """The statements of a loop; its results end in variables."""
    turns, carried = node.attributes["turns"], node.attributes["carried"]
    for value in node.inputs[carried:]:
        assert value is not None
        forward.settle(value, forward.graph.node(value).name or "x")  # once, and not in every turn
    names = _enter(forward, node, carried)
    captured = [forward.take(value).text for value in node.inputs[carried:] if value is not None]
    if turns:
        bodies = [forward.program.region_unit(body) for body in node.bodies]
        if any(forward.program.owns_weights(unit) for unit in bodies):
            _through_list(forward, node, bodies, names, captured)
        else:
            _plain(forward, node, bodies, names, captured)
    for index, name in enumerate(names):
        forward.rename(Value(node.id, index), name)


def _enter(forward: Forward, node: Node, carried: int) -> list[str]:
    """Variables that hold the carried values; a value that is needed after the loop is copied to a new name."""
    names = []
    for index, value in enumerate(node.inputs[:carried]):
        assert value is not None
        code = forward.take(value)
        wanted = forward.label(Value(node.id, index)) or "x"
        if code.text == identifier(wanted) and forward.is_spent(value):
            names.append(code.text)
            forward.hold(code.text, Value(node.id, index))
            continue
        names.append(forward.bind_text(Value(node.id, index), wanted, code.text))
    return names


def _call(callee: str, arguments: list[str]) -> str:
    return f"{callee}({', '.join(arguments)})"


def _through_list(
    forward: Forward, node: Node, bodies: list[structure.Unit], names: list[str], captured: list[str]
) -> None:
    program = forward.program
    extras: dict[tuple[str, str], str] = {}
    for unit in bodies:
        extras |= program.method(unit).extras
    program.settle_extras(bodies, extras)
    modules = forward.module(node.attributes["path"])
    arguments = [*names, *captured, *forward.extra_arguments(extras)]
    layer = forward.fresh("layer" if names != ["layer"] else "turn")
    every = node.attributes.get("checkpoint")
    penalties = _start_penalties(forward, bodies)
    left = ", ".join([*names, *(f"{name}_" for name in penalties)])
    if every:
        _checkpointed(forward, modules, layer, every, left, arguments, bool(penalties))
    else:
        forward.line(f"for {layer} in {modules}:")
        forward.line(f"    {left} = {_call(layer, arguments)}")
        for name in penalties:
            forward.line(f"    {name} = {name} + {name}_")
    forward.release(layer)


def _checkpointed(
    forward: Forward, modules: str, layer: str, every: int, left: str, arguments: list[str], penalties: bool
) -> None:
    forward.needs_helper("checkpoint")
    if every == 1 or penalties:
        forward.line(f"for {layer} in {modules}:")
        forward.line(f"    if {forward.training()}:  # recompute in the backward pass instead of keeping activations")
        forward.line(f"        {left} = checkpoint({layer}, {', '.join(arguments)}, use_reentrant=False)")
        forward.line("    else:")
        forward.line(f"        {left} = {_call(layer, arguments)}")
        return
    forward.needs_helper("run_layers" if "," not in left else "run_layers_carrying")
    run = "run_layers" if "," not in left else "run_layers_carrying"
    carried = "" if "," not in left else f"{left.count(',') + 1}, "
    forward.line(f"for start in range(0, len({modules}), {every}):")
    forward.line(f"    part = {modules}[start : start + {every}]")
    forward.line(f"    if {forward.training()}:  # recompute in the backward pass instead of keeping activations")
    forward.line(f"        {left} = checkpoint({run}, part, {carried}{', '.join(arguments)}, use_reentrant=False)")
    forward.line("    else:")
    forward.line(f"        {left} = {run}(part, {carried}{', '.join(arguments)})")


def _start_penalties(forward: Forward, bodies: list[structure.Unit]) -> list[str]:
    """Sums for the auxiliary losses of the turns."""
    names = []
    for index, value in enumerate(bodies[0].graph.penalties):
        names.append(forward.start_penalty(index, value[0]))
    return names


def _plain(
    forward: Forward, node: Node, bodies: list[structure.Unit], names: list[str], captured: list[str]
) -> None:
    """Turns without weights of their own: the body stands in the loop itself."""
    turns = node.attributes["turns"]
    runs: list[tuple[int, int]] = []
    for turn in turns:
        if runs and runs[-1][0] == turn:
            runs[-1] = (turn, runs[-1][1] + 1)
        else:
            runs.append((turn, 1))
    for kind, count in runs:
        unit = bodies[kind]
        inner = forward.inline(unit, [*names, *captured], indented=count > 1)
        if count > 1:
            text = forward.setting(node, "turns", count) if len(runs) == 1 else str(count)
            forward.line(f"for _ in range({text}):")
        body, results = inner
        forward.lines += body
        pad = "    " if count > 1 else ""
        moved = [(name, result) for name, result in zip(names, results, strict=True) if name != result]
        if moved:
            forward.line(pad + ", ".join(n for n, _ in moved) + " = " + ", ".join(r for _, r in moved))
