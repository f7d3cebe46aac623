"""`repeat` in the emitted source: a `ModuleList` to run through, or a plain `for` where the turns own no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfdsl.backends.torch import structure
from tfdsl.backends.torch.lowerings import Code, Site
from tfdsl.backends.torch.names import identifier
from tfdsl.ir.graph import Node, Value
from tfdsl.language.diagnostics import SpecError, one

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


def routed(site: Site) -> Code:
    """The call that sends rows to the experts of a `ModuleList`, each of which sees those that chose it only."""
    forward, node = site.forward, site.node
    unit = forward.program.region_unit(node.bodies[0])
    written = forward.program.method(unit)
    extras = written.extras
    forward.needs_helper("route")
    experts = forward.module(node.attributes["path"])
    if written.method != "forward":
        experts = f"[expert.{written.method} for expert in {experts}]"
    arguments = [*(site.arg(place) for place in range(3)), experts]
    arguments += [site.arg(place) for place in range(3, len(site.args))]
    return Code(f"route({', '.join([*arguments, *forward.extra_arguments(extras)])})")


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
    penalties = forward.start_penalties(bodies[0].penalties)
    left = ", ".join([*names, *(f"{name}_" for name in penalties)])
    if every and every > 1:
        if penalties:
            raise _refuse(node, "turns with a penalty cannot be recomputed in groups", "checkpoint them with every=1")
        _in_groups(forward, modules, every, left, arguments)
    else:
        forward.line(f"for {layer} in {modules}:")
        if every:
            _recomputed(forward, left, f"{layer}, {', '.join(arguments)}", _call(layer, arguments))
        else:
            forward.line(f"    {left} = {_call(layer, arguments)}")
        for name in penalties:
            forward.line(f"    {name} = {name} + {name}_")
    forward.release(layer)


def _refuse(node: Node, message: str, remedy: str) -> SpecError:
    return one("T709", f"torch: `{node.attributes['path']}`: {message}", node.span, help=remedy)


def _recomputed(forward: Forward, left: str, checkpointed: str, plain: str) -> None:
    """One step of a loop, which training runs again in the backward pass instead of keeping its activations."""
    forward.needs_helper("checkpoint")
    forward.line(f"    if {forward.training()}:  # recompute in the backward pass instead of keeping activations")
    forward.line(f"        {left} = checkpoint({checkpointed}, use_reentrant=False)")
    forward.line("    else:")
    forward.line(f"        {left} = {plain}")


def _in_groups(forward: Forward, modules: str, every: int, left: str, arguments: list[str]) -> None:
    several = "," in left
    run = "run_layers_carrying" if several else "run_layers"
    forward.needs_helper(run)
    inputs = ", ".join(([str(left.count(",") + 1)] if several else []) + arguments)
    forward.line(f"for start in range(0, len({modules}), {every}):")
    forward.line(f"    part = {modules}[start : start + {every}]")
    _recomputed(forward, left, f"{run}, part, {inputs}", f"{run}(part, {inputs})")


def _plain(forward: Forward, node: Node, bodies: list[structure.Unit], names: list[str], captured: list[str]) -> None:
    """Turns without weights of their own: the body stands in the loop itself."""
    turns = node.attributes["turns"]
    runs: list[tuple[int, int]] = []
    for turn in turns:
        if runs and runs[-1][0] == turn:
            runs[-1] = (turn, runs[-1][1] + 1)
        else:
            runs.append((turn, 1))
    if node.attributes.get("checkpoint"):
        if len(runs) > 1 or bodies[0].penalties:
            raise _refuse(
                node, "turns that own no weights and differ cannot be recomputed", "leave it out of `checkpoint`"
            )
        _plain_recomputed(forward, node, bodies[0], names, captured)
        return
    penalties = forward.start_penalties(bodies[0].penalties)
    for kind, count in runs:
        if count > 1:
            text = forward.setting(node, "turns", count) if len(runs) == 1 else str(count)
            forward.line(f"for _ in range({text}):")
        _write_body(forward, bodies[kind], names, captured, penalties, "    " if count > 1 else "")


def _write_body(
    forward: Forward, unit: structure.Unit, names: list[str], captured: list[str], penalties: list[str], pad: str
) -> None:
    body, results, sums = forward.inline(unit, [*names, *captured], pad)
    forward.lines += body
    for name, text in zip(penalties, sums, strict=True):
        forward.line(f"{pad}{name} = {name} + {text}")
    moved = [(name, result) for name, result in zip(names, results, strict=True) if name != result]
    if moved:
        forward.line(pad + ", ".join(name for name, _ in moved) + " = " + ", ".join(result for _, result in moved))


def _plain_recomputed(
    forward: Forward, node: Node, unit: structure.Unit, names: list[str], captured: list[str]
) -> None:
    """The same, with the turns in a local function that `checkpoint` can run again."""
    total, every = len(node.attributes["turns"]), node.attributes["checkpoint"]
    carried = ", ".join(names)
    forward.line(f"def run_turns(count, {carried}):")
    forward.line("    for _ in range(count):")
    _write_body(forward, unit, names, captured, [], "        ")
    forward.line(f"    return {carried}")
    forward.line("")
    forward.line(f"for start in range(0, {total}, {every}):")
    count = "1" if every == 1 else f"min({every}, {total} - start)"
    _recomputed(forward, carried, f"run_turns, {count}, {carried}", f"run_turns({count}, {carried})")
