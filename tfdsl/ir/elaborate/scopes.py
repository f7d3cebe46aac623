"""Scopes for expressions outside a body: those of plans, which see a model's parameters and nothing else of it."""

from __future__ import annotations

from tfdsl.ir.elaborate.body import Body, Session, new_graph
from tfdsl.ir.elaborate.parameters import Parameters, declared_parameters
from tfdsl.ir.elaborate.values import Place, Region
from tfdsl.ir.graph import Frame
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector
from tfdsl.language.modules import Declared, Module, base_block


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
