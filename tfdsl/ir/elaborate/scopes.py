"""Scopes for expressions outside a body: those of plans and mappings, which see a model's parameters and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from tfdsl.ir.elaborate.blocks import overrides_of
from tfdsl.ir.elaborate.body import Body, Session, new_graph
from tfdsl.ir.elaborate.parameters import Override, Parameters, declared_parameters
from tfdsl.ir.elaborate.values import Place, Region
from tfdsl.ir.graph import Frame
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector
from tfdsl.language.modules import Declared, Module, base_block, home


def plain_scope(module: Module, parameters: Parameters | None) -> Body:
    """A scope over the names of a file and the parameters of a model, if it has them."""
    frame = Frame("", "", {})
    body = Body(Session(), module, Region(new_graph("", frame)), Place(""), frame, ())
    body.parameters = parameters
    return body


def free_sizes(declared: Declared) -> list[str]:
    """The names of the sizes that a model's inputs leave open: those that run time binds."""
    block = base_block(declared)
    parameters = declared_parameters(block, Collector())
    extents = [extent for each in block.inputs for extent in each.type.extents]
    names = [each.text for each in extents if isinstance(each, syntax.Path) and len(each.parts) == 1]
    return list(dict.fromkeys(name for name in names if name not in parameters))


def parameters_of(declared: Declared, overrides: Mapping[str, Override]) -> Parameters:
    """The parameters of a model (or block) with some of them given, without its graph.

    Each is evaluated when it is asked for. Raises `SpecError` for a setting that is wrong in itself.
    """
    block, session = base_block(declared), Session()
    known = declared_parameters(block, session.faults)
    settings = {**overrides_of(declared, session.faults), **overrides}
    session.faults.check()
    frame = Frame("", declared.name, {}, span=block.name.span)
    body = Body(session, home(declared).module, Region(new_graph("", frame)), Place(""), frame, ())
    body.blocks, body.statements = (block,), block.body
    body.parameters = Parameters(body, known, {}, settings)
    return body.parameters
