"""A model of a file elaborated into a graph."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tfdsl.ir import dims
from tfdsl.ir.elaborate.arithmetic import is_size
from tfdsl.ir.elaborate.blocks import bind_inputs, dtype_of, no_parameter, overrides_of, run_block
from tfdsl.ir.elaborate.body import Body, Session, new_graph
from tfdsl.ir.elaborate.causes import causes
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Override, Parameters, declared_parameters
from tfdsl.ir.elaborate.values import ABSENT, Exhausted, Fault, Given, Place, Poisoned, Region, kind_of
from tfdsl.ir.graph import Frame, Graph, Type
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from tfdsl.language.modules import Declared, base_block, home


class Elaborated:
    """A model as a graph, with the parameters that it was made with."""

    def __init__(self, graph: Graph, parameters: Parameters):
        self.graph = graph
        self.parameters = parameters


def elaborate(
    declared: Declared,
    overrides: Mapping[str, Override] | None = None,
    optional: Sequence[str] = (),
    session: Session | None = None,
) -> Elaborated:
    """The graph of a model. `optional` names the optional inputs that the graph is to have.

    Raises `SpecError` with all faults found.
    """
    session = session or Session()
    elaborated: Elaborated | None = None
    with room_for_depth():
        try:
            elaborated = _elaborate(session, declared, overrides or {}, optional)
        except (Fault, Exhausted) as fault:
            session.faults.add(fault.diagnostic)
        except Poisoned:
            pass
        except RecursionError:
            where = base_block(declared).name.span
            raise SpecError([Diagnostic("T104", "the model is nested too deeply", where)]) from None
        except dims.DimError as error:
            session.faults.add(Diagnostic("T405", str(error), base_block(declared).name.span))
    session.faults.check()
    assert elaborated is not None, "poison without a fault"
    return elaborated


@contextmanager
def room_for_depth() -> Iterator[None]:
    """Room for blocks within blocks; how deep those go is bounded where they are applied."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 50_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _elaborate(
    session: Session, declared: Declared, overrides: Mapping[str, Override], optional: Sequence[str]
) -> Elaborated:
    block = base_block(declared)
    parameters = declared_parameters(block, session.faults)
    settings = {**overrides_of(declared, session.faults), **overrides}
    _check_names(session.faults, declared, block, parameters, overrides, optional)
    defaults = {name: each.default for name, each in parameters.items() if each.default is not None}
    frame = Frame("", declared.name, {}, declared=defaults, span=block.name.span, declaration=block)
    graph = new_graph(declared.name, frame)
    region = Region(graph)
    body = Body(session, home(declared).module, region, Place(""), frame, ())
    body.base = block.name.text
    body.blocks, body.statements = (block,), block.body
    body.parameters = Parameters(body, parameters, {}, settings)
    inputs = _inputs(body, block, optional)
    bind_inputs(body, block, inputs, block.name.span)
    results = run_block(body, block, block.name.span)
    names = _output_names(block)
    graph.outputs = [(name, region.use(tensor)) for name, tensor in zip(names, results, strict=True)]
    graph.constraints = session.constraints
    return Elaborated(graph, body.parameters)


def _check_names(
    faults: Collector,
    declared: Declared,
    block: syntax.Block,
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Override],
    optional: Sequence[str],
) -> None:
    for name, override in overrides.items():
        if name not in parameters:
            faults.add(no_parameter(block, declared.name, parameters, name, override.span).diagnostic)
    known = [each.name.text for each in block.inputs if each.optional]
    always = [each.name.text for each in block.inputs if not each.optional]
    for name in optional:
        if name not in (*known, *always):
            help_ = did_you_mean(name, known, "its optional inputs are " + (", ".join(known) or "none"))
            faults.add(Diagnostic("T314", f"`{declared.name}` has no optional input `{name}`", None, help=help_))
    faults.check()


def _output_names(block: syntax.Block) -> list[str]:
    names: list[str] = []
    for position, output in enumerate(block.outputs):
        default = "output" if len(block.outputs) == 1 else f"output_{position}"
        name = output.name.text if output.name else default
        names.append(name)
    return names


def _inputs(body: Body, block: syntax.Block, optional: Sequence[str]) -> dict[str, Given]:
    """Input nodes with a symbol for every free name of the signature."""
    given: dict[str, Given] = {}
    chosen = [each for each in block.inputs if not each.optional or each.name.text in optional]
    for each in block.inputs:
        if each not in chosen:
            given[each.name.text] = Given(ABSENT, None, None, each.span)
    free: dict[str, dims.Dim] = {}
    for each in chosen:
        for extent in each.type.extents:
            if isinstance(extent, syntax.Ellipsis_):
                raise Fault("T408", "the inputs of a model name all their axes", extent.span)
            if isinstance(extent, syntax.Path) and len(extent.parts) == 1 and extent.text not in body.parameters:
                free[extent.text] = dims.symbol(extent.text)
    body.env.update(free)
    body.frame.names.update(free)  # type: ignore[attr-defined]
    for each in chosen:
        for extent in each.type.extents:
            body.spans.setdefault(extent.span.text, extent.span)
        dtype = dtype_of(each.type)
        sizes = tuple(_extent(body, extent) for extent in each.type.extents)
        tensor = body.region.add_input(each.name.text, Type(dtype, sizes))
        tensor.node.span = each.span
        given[each.name.text] = Given(tensor, None, None, each.name.span)
    return given


def _extent(body: Body, extent: Any) -> Any:
    size = evaluate(body, extent)
    if not is_size(size) or (isinstance(size, int) and size < 1):
        fault = Fault("T408", f"an axis is a size above zero, not {kind_of(size)}", extent.span)
        raise fault.because(causes(body, extent))
    return size
