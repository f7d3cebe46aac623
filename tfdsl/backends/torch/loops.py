"""`repeat` in the emitted source: a `ModuleList` to run through, or a plain `for` where the turns own no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdsl.backends.torch.code import Code, call
from tfdsl.backends.torch.names import sanitised
from tfdsl.backends.torch.site import Site
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.graph import Node, Value

if TYPE_CHECKING:
    from tfdsl.backends.torch.forward import Forward

REMARK = "  # recompute in the backward pass instead of keeping activations"


@dataclass
class Loop:
    """A loop being written: the variables that go from turn to turn, what is the same in each, the losses it sums."""

    node: Node
    bodies: list[Unit]
    carried: list[str]
    captured: list[str]
    sums: list[str]

    @property
    def state(self) -> str:
        """All that goes from turn to turn."""
        return ", ".join([*self.carried, *self.sums])

    @property
    def every(self) -> int | None:
        """How many turns are recomputed together, if any are."""
        every: int | None = self.node.attributes.get("checkpoint")
        return every


def write_loop(forward: Forward, node: Node) -> None:
    """The statements of a loop; its results end in variables."""
    count = node.attributes["carried"]
    bodies = [forward.program.region_unit(body) for body in node.bodies]
    for value in node.inputs[count:]:
        assert value is not None
        forward.settle(value)  # once, and not in every turn
    carried = enter(forward, node, count)
    captured = [forward.tensor_code(value) for value in node.inputs[count:] if value is not None]
    loop = Loop(node, bodies, carried, captured, forward.start_sums(bodies[0].penalties))
    if forward.program.is_list(node):
        _through_list(forward, loop)
    elif loop.every:
        _inlined_and_recomputed(forward, loop)
    else:
        _inlined(forward, loop)
    for value in node.inputs[count:]:
        if value is not None:
            forward.variables.spend(value)
    for index, name in enumerate(carried):
        forward.hold(name, Value(node.id, index))


def enter(forward: Forward, node: Node, count: int) -> list[str]:
    """Variables that hold the carried values; a value that is needed after the loop is copied to a new name.

    A loop's are called as the spec calls the results, those of a recurrence as the step calls its states.
    """
    names: list[str] = []
    body = node.bodies[0]
    inside = [body.node(place).attributes["name"] for place in body.inputs]
    for index, value in enumerate(node.inputs[:count]):
        assert value is not None
        result = Value(node.id, index)
        label = forward.temporaries.label(result).strip("_")
        wanted = inside[index] if node.op == "scan" else label or inside[index]
        forward.settle(value, wanted)
        code = forward.whole(value)
        if forward.program.is_derived(forward.graph, value):
            code = f"{code}.to({forward.draft.float_type()})"
        if code == sanitised(wanted) and code not in names and forward.variables.is_free(code):
            name = code
        else:
            name = forward.variables.fresh(wanted)
            if name != code:
                forward.line(f"{name} = {code}")
        forward.variables.occupy(name)
        names.append(name)
    return names


# --- turns with weights ----------------------------------------------------------------------------------------------


def _through_list(forward: Forward, loop: Loop) -> None:
    path, turns = loop.node.attributes["path"], len(loop.node.attributes["turns"])
    method = forward.program.methods(loop.bodies)[0]
    modules = forward.draft.module(path)
    if turns < len(forward.program.places.elements(path)):
        modules = f"{modules}[:{turns}]"
    arguments = [*loop.captured, *forward.draft.arguments(method.extras)]
    if loop.every and loop.every > 1:
        _in_groups(forward, loop, modules, arguments)
        return
    layer = forward.variables.fresh("layer", "turn")
    forward.line(f"for {layer} in {modules}:")
    _turn(forward, loop, layer, arguments, "    ", recompute=loop.every == 1)
    forward.variables.release(layer)


def _turn(
    forward: Forward, loop: Loop, layer: str, arguments: Sequence[str], indent: str, recompute: bool = False
) -> None:
    """One turn through a layer."""
    method = forward.program.methods(loop.bodies)[0]
    callee = layer if method.name == "forward" else f"{layer}.{method.name}"
    lost = [forward.variables.fresh(f"{name}_") for name in loop.sums]
    left = ", ".join([*loop.carried, *lost])
    if recompute:
        _recomputed(forward, left, callee, [*loop.carried, *arguments], indent)
    else:
        forward.line(f"{left} = {call(callee, *loop.carried, *arguments).text}", indent)
    for name, part in zip(loop.sums, lost, strict=True):
        forward.line(f"{name} = {name} + {part}", indent)
        forward.variables.release(part)


def _recomputed(forward: Forward, left: str, callee: str, arguments: Sequence[str], indent: str) -> None:
    """One step of a loop, which training runs again in the backward pass instead of keeping its activations."""
    forward.program.use_helper("checkpoint")
    forward.line(f"if {forward.draft.training()}:{REMARK}", indent)
    forward.line(f"{left} = {call('checkpoint', callee, *arguments, 'use_reentrant=False').text}", f"{indent}    ")
    forward.line("else:", indent)
    forward.line(f"{left} = {call(callee, *arguments).text}", f"{indent}    ")


def _in_groups(forward: Forward, loop: Loop, modules: str, arguments: Sequence[str]) -> None:
    """Several turns at a time, by a function that `checkpoint` can run again."""
    run, layers, layer = (forward.variables.fresh(name) for name in ("run_layers", "layers", "layer"))
    inner = _parameters(forward, arguments)
    forward.line(f"def {run}({', '.join([layers, loop.state, *inner])}):")
    forward.line(f"for {layer} in {layers}:", "    ")
    _turn(forward, loop, layer, inner, "        ")
    forward.line(f"return {loop.state}", "    ")
    forward.line("")
    start = forward.variables.fresh("start")
    forward.line(f"for {start} in range(0, len({modules}), {loop.every}):")
    part = f"{modules}[{start} : {start} + {loop.every}]"
    _recomputed(forward, loop.state, run, [part, loop.state, *arguments], "    ")
    for name in (layers, layer, start, *inner):
        forward.variables.release(name)


def _parameters(forward: Forward, arguments: Sequence[str]) -> list[str]:
    """Names inside a local function for what it is given."""
    return [forward.variables.fresh(each if each.isidentifier() else each.rpartition(".")[2]) for each in arguments]


# --- experts ---------------------------------------------------------------------------------------------------------


def routed(s: Site) -> Code:
    """The call that sends rows to experts, each of which sees those that chose it only."""
    forward, node = s.forward, s.node
    bodies = [forward.program.region_unit(body) for body in node.bodies]
    forward.program.use_helper("route")
    captured = [s.arg(place) for place in range(3, len(s.args))]
    if forward.program.is_list(node):
        method = forward.program.methods(bodies)[0]
        experts = forward.draft.module(node.attributes["path"])
        if method.name != "forward":
            experts = f"[expert.{method.name} for expert in {experts}]"
        captured += forward.draft.arguments(method.extras)
    else:
        if node.id not in forward.locals:
            functions = [_expert(forward, unit, captured) for unit in bodies]
            forward.locals[node.id] = ", ".join(functions[kind] for kind in node.attributes["turns"])
        experts = f"[{forward.locals[node.id]}]"
    return call("route", s.arg(0), s.arg(1), s.arg(2), experts, *captured)


def _expert(forward: Forward, unit: Unit, captured: Sequence[str]) -> str:
    """A local function for an expert that owns no weights."""
    name, x = forward.variables.fresh("expert"), forward.variables.fresh("rows")
    given = _parameters(forward, captured)
    inner = forward.inside(unit, "    ")
    for value, text in zip(unit.inputs, [x, *given], strict=True):
        inner.capture(value, text)
    inner.count()
    inner.run()
    forward.line(f"def {name}({', '.join([x, *given])}):")
    forward.lines += inner.lines
    forward.line(f"return {inner.whole(unit.results[0])}", "    ")
    forward.line("")
    for each in (x, *given):
        forward.variables.release(each)
    return name


# --- turns without weights -------------------------------------------------------------------------------------------


def runs(turns: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The stretches of equal turns: what they are, where they start and where they stop."""
    start = 0
    for stop in range(1, len(turns) + 1):
        if stop == len(turns) or turns[stop] != turns[start]:
            yield turns[start], start, stop
            start = stop


def _inlined(forward: Forward, loop: Loop) -> None:
    """The bodies stand in the loop itself."""
    stretches = list(runs(loop.node.attributes["turns"]))
    for kind, start, stop in stretches:
        count = Code(str(stop - start))
        if len(stretches) == 1:
            count = forward.numbers.setting(loop.node, "turns", stop - start)
        if stop - start > 1 or count.text != "1":
            forward.line(f"for _ in range({count.text}):")
            _write_body(forward, loop, kind, loop.captured, "    ")
        else:
            _write_body(forward, loop, kind, loop.captured, "")


def _write_body(forward: Forward, loop: Loop, kind: int, captured: Sequence[str], indent: str) -> None:
    """The statements of a body, over the variables of the loop."""
    unit, count = loop.bodies[kind], len(loop.carried)
    inner = forward.inside(unit, indent)
    for value, name in zip(unit.inputs[:count], loop.carried, strict=True):
        inner.hold(name, value)
    for value, text in zip(unit.inputs[count:], captured, strict=True):
        inner.capture(value, text)
    inner.count()
    inner.run()
    results = [inner.whole(value) for value in unit.results]
    for name, text in zip(loop.sums, inner.penalty_sums().values(), strict=True):
        inner.line(f"{name} = {name} + {text}")
    moved = [(name, text) for name, text in zip(loop.carried, results, strict=True) if name != text]
    if moved:
        inner.line(f"{', '.join(name for name, _ in moved)} = {', '.join(text for _, text in moved)}")
    forward.lines += inner.lines or [f"{inner.indent}pass"]


def _inlined_and_recomputed(forward: Forward, loop: Loop) -> None:
    """The same, with the turns in a local function that `checkpoint` can run again."""
    assert loop.every is not None
    for kind, first, last in runs(loop.node.attributes["turns"]):
        run, count, start = (forward.variables.fresh(name) for name in ("run_turns", "count", "start"))
        inner = _parameters(forward, loop.captured)
        forward.line(f"def {run}({', '.join([count, loop.state, *inner])}):")
        forward.line(f"for _ in range({count}):", "    ")
        _write_body(forward, loop, kind, inner, "        ")
        forward.line(f"return {loop.state}", "    ")
        forward.line("")
        forward.line(f"for {start} in range(0, {last - first}, {loop.every}):")
        group = "1" if loop.every == 1 else f"min({loop.every}, {last - first} - {start})"
        _recomputed(forward, loop.state, run, [group, loop.state, *loop.captured], "    ")
        for name in (count, start, *inner):
            forward.variables.release(name)
