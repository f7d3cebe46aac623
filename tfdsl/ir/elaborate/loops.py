"""`repeat`: a body that stays one node, holding a graph for each kind of turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfdsl.ir.dims import Dim
from tfdsl.ir.elaborate.body import MOST_TURNS, Body, binders, bound_names, is_unknown, new_graph
from tfdsl.ir.elaborate.causes import causes
from tfdsl.ir.elaborate.values import Fault, Place, Poisoned, Region, Tensor, kind_of
from tfdsl.ir.graph import Frame, Graph, Type, Value
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label

_COLLECT = "`all = concat(all, x)` collects tensors, in a loop whose turns read its index"
_MAY_CHANGE = "only a loop whose turns read its index, `repeat NAME[n] as i`, may change shapes"


@dataclass(frozen=True)
class _Entry:
    """What a turn takes over from the one before: names and types, and whether a shape may change in it."""

    names: list[str]
    types: tuple[Type, ...]
    changing: bool


def run_repeat(body: Body, statement: syntax.Repeat) -> None:
    """Elaborate a loop: one graph for all turns, or one for each distinct turn where the body reads the index.

    In a loop that reads its index, what is carried may change its shape: a turn then takes what the one before it gave.
    """
    count = _count(body, statement)
    place = body.claim(statement.name.text, statement.name.span)
    carried = _carried(body, statement)
    index = statement.index.text if statement.index else None
    reads_index = index is not None and any(_mentions(each, index) for each in statement.body)
    captures: list[Tensor] = []
    found: dict[Any, int] = {}
    kinds: list[Region] = []
    turns: list[int] = []
    choices = _choices(statement, index) if reads_index and index else None
    alike: dict[Any, int] = {}
    types = tuple(_tensor(body, name).type for name in carried)
    for turn in range(count if reads_index else min(count, 1)):
        choice = _choose(body, choices, index, turn) if choices is not None and index else turn
        kind = alike.get((choice, types), -1)
        if kind < 0:
            before = len(body.session.faults.found)
            entry = _Entry(carried, types, changing=reads_index)
            region = _turn(body, statement, place, entry, captures, turn, count)
            if len(body.session.faults.found) > before:
                raise Poisoned  # other turns would only say the same again
            kind = found.setdefault(structure(region.graph), len(kinds))
            if kind == len(kinds):
                kinds.append(region)
            alike[choice, types] = kind
        turns.append(kind)
        types = tuple(kinds[kind].graph.type(value) for _, value in kinds[kind].graph.outputs)
    for region in kinds:
        region.finish(region.graph.inputs[: len(carried)])
    if not reads_index:
        turns = [0] * count
    inputs = [body.region.use(_tensor(body, name)) for name in carried]
    node = body.region.graph.add(
        "repeat",
        (*inputs, *(tensor.value for tensor in captures)),
        {"turns": tuple(turns), "carried": len(carried), "path": place.path, "index": index},
        types,
        name=statement.name.text,
        labels=tuple(carried),
        scope=body.frames,
        span=statement.span,
        spelled={"turns": statement.count},
        bodies=tuple(region.graph for region in kinds),
    )
    for position, name in enumerate(carried):
        body.env[name] = Tensor(Value(node.id, position), node.types[position], body.region)


def _count(body: Body, statement: syntax.Repeat) -> int:
    from tfdsl.ir.elaborate.expressions import evaluate

    count = evaluate(body, statement.count)
    fault: Fault | None = None
    if isinstance(count, Dim) and body.session.symbolic:
        return 1
    if isinstance(count, Dim):
        message = f"the number of turns must be known, and {count} is not before run time"
        fault = Fault("T306", message, statement.count.span, help="a parameter can say it")
    elif isinstance(count, bool) or not isinstance(count, int) or count < 0:
        fault = Fault("T306", f"the number of turns is a whole number, not {kind_of(count)}", statement.count.span)
    elif count * body.turns > MOST_TURNS:
        message = f"{count * body.turns:,} turns are more than the {MOST_TURNS:,} that loops may take"
        note = f"{count:,} in each of {body.turns:,} turns around it" if body.turns > 1 else ""
        fault = Fault("T306", message, statement.count.span, note=note)
    if fault is not None:
        raise fault.because(causes(body, statement.count))
    return count


def _carried(body: Body, statement: syntax.Repeat) -> list[str]:
    """The names bound before the loop and again inside it."""
    carried = []
    for name in bound_names(statement.body):
        if not body.knows(name):
            continue
        value = body.lookup(name)
        if not isinstance(value, Tensor):
            span = next(n.span for s in statement.body for n in binders(s) if n.text == name)
            first = body.where(name)
            raise Fault(
                "T209",
                f"`{name}` is {kind_of(value)} outside the loop, and only tensors are carried from turn to turn",
                span,
                others=(Label(first, "bound here"),) if first else (),
                help=_COLLECT if isinstance(value, tuple) else "use another name inside",
            )
        carried.append(name)
    return carried


def _tensor(body: Body, name: str) -> Tensor:
    value = body.lookup(name)
    assert isinstance(value, Tensor)
    return value


def _mentions(tree: syntax.Tree, name: str) -> bool:
    return any(isinstance(node, syntax.Path) and node.parts[0].text == name for node in tree.walk())


def _choices(statement: syntax.Repeat, index: str) -> list[syntax.Expression] | None:
    """The largest expressions of numbers that read the index: turns for which they agree are alike.

    None where one of them reads a name that the loop's own body binds, and so cannot be told beforehand.
    """
    own = set(bound_names(statement.body))
    found: list[syntax.Expression] = []
    waiting: list[syntax.Tree] = list(statement.body)
    while waiting:
        tree = waiting.pop()
        if not _mentions(tree, index):
            continue
        if _is_numeric(tree):
            if any(isinstance(node, syntax.Path) and node.parts[0].text in own for node in tree.walk()):
                return None
            found.append(tree)  # type: ignore[arg-type]
        else:
            waiting.extend(tree.children())
    return found


def _is_numeric(tree: syntax.Tree) -> bool:
    """Whether an expression is arithmetic on names and numbers and nothing else."""
    return all(
        isinstance(node, (syntax.Path, syntax.Name, syntax.Number, syntax.Unary, syntax.Binary)) for node in tree.walk()
    ) and isinstance(tree, (syntax.Path, syntax.Unary, syntax.Binary))


def _choose(body: Body, choices: list[syntax.Expression], index: str, turn: int) -> Any:
    """What the expressions that read the index come to in a turn."""
    from tfdsl.ir.elaborate.expressions import evaluate

    probe = Body(body.session, body.module, body.region, Place(""), body.frame, (), outer=body)
    probe.env[index] = turn
    try:
        values = tuple(evaluate(probe, each) for each in choices)
    except (Fault, Poisoned):
        return turn  # the turn itself will report it
    return values if all(isinstance(value, (bool, int, float, Dim)) for value in values) else turn


def _turn(
    body: Body,
    statement: syntax.Repeat,
    place: Place,
    entry: _Entry,
    captures: list[Tensor],
    turn: int,
    count: int,
) -> Region:
    """The region of one turn."""
    names = dict(body.frame.names)
    if statement.index is not None:
        names[statement.index.text] = turn
    path = place.join("*")
    declaration = body.frame.declaration
    frame = Frame(path, body.base or body.frame.block, names, span=statement.span, declaration=declaration)
    region = Region(new_graph(path, frame), body.region, captures)
    inside = Body(
        body.session,
        body.module,
        region,
        Place(path, place),
        frame,
        (),
        outer=body,
        blocks=body.blocks,
        turns=body.turns * count,
        base=body.base,
    )
    place.children["*"] = [inside.place]
    if statement.index is not None:
        inside.env[statement.index.text] = turn
        inside.spans[statement.index.text] = statement.index.span
    for name, type_ in zip(entry.names, entry.types, strict=True):
        inside.env[name] = region.add_input(name, type_)
        inside.spans[name] = body.where(name) or statement.span
    result = inside.run(statement.body)
    if result is not None:
        raise Fault("T210", "a loop does not `return`; it carries what it binds again from turn to turn", result.span)
    inside.initialize(statement.body)
    for name, type_ in zip(entry.names, entry.types, strict=True):
        after = _carry(body, inside, name, type_, statement, entry.changing)
        region.graph.outputs.append((name, region.use(after)))
    return region


def _carry(body: Body, inside: Body, name: str, before: Type, statement: syntax.Repeat, changing: bool) -> Tensor:
    """What a name is at the end of a turn; of the type that it had, or of another shape where turns may differ."""
    after = inside.lookup(name)
    span = next(n.span for s in reversed(statement.body) for n in reversed(binders(s)) if n.text == name)
    if is_unknown(after) or not isinstance(after, Tensor):
        raise Fault("T209", f"`{name}` is carried from turn to turn, and ends a turn as {kind_of(after)}", span)
    if after.type.dtype != before.dtype or (after.type != before and not changing):
        first = body.where(name)
        raise Fault(
            "T402",
            f"`{name}` is carried from turn to turn and changes from {before} to {after.type}",
            span,
            note=f"here it is {after.type}",
            others=(Label(first, f"before the loop it is {before}"),) if first else (),
            help="" if after.type.dtype != before.dtype else _MAY_CHANGE,
        )
    return after


def structure(graph: Graph) -> Any:
    """A key that two graphs share exactly if they compute the same in the same way."""
    order = {node.id: position for position, node in enumerate(graph.nodes())}
    rows = []
    for node in graph.nodes():
        inputs = tuple(None if v is None else (order[v.node], v.index) for v in node.inputs)
        attributes = tuple(sorted((k, repr(v)) for k, v in node.attributes.items()))
        rows.append((node.op, inputs, attributes, node.types, tuple(structure(body) for body in node.bodies)))
    outputs = tuple((name, order[value.node], value.index) for name, value in graph.outputs)
    return tuple(rows), outputs, tuple((name, order[value.node], value.index) for name, value in graph.penalties)
