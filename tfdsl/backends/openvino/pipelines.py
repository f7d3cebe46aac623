"""Which generators of openvino-genai can run a decoder, and why not.

There are two ways: "stateful", one batch at a time with the model's own variables, and "paged", which puts the attention of
the runtime in the place of the model's (`LLMPipeline` does so by default where it can, `ContinuousBatchingPipeline` always).
"""

from __future__ import annotations

from dataclasses import dataclass

import openvino
from openvino._offline_transformations import paged_attention_transformation

from tfdsl.backends.openvino.builder import scope_of
from tfdsl.backends.openvino.decoder_attention import Told, told
from tfdsl.decoding.manifest import MASK, POSITIONS
from tfdsl.ir.graph import Graph, Node
from tfdsl.ir.states import STATEFUL
from tfdsl.language.diagnostics import SpecError, one

STATEFUL_WAY, PAGED_WAY = "stateful", "paged"


@dataclass(frozen=True)
class Hindrance:
    """Why a generator cannot run a decoder, and the node that is in its way, if it is one."""

    reason: str
    node: Node | None = None

    def __str__(self) -> str:
        if self.node is None:
            return self.reason
        return f"`{self.node.op}` at `{scope_of(self.node) or 'the top'}`: {self.reason}"


Ways = dict[str, Hindrance | None]


def ways(graph: Graph, tokens: str, encoder: Graph | None = None) -> Ways:
    """What hinders each way of running a flat incremental graph and its encoder; None where nothing does."""
    stateful = _no_text_to_text(graph, tokens, encoder)
    return {STATEFUL_WAY: stateful, PAGED_WAY: stateful or _not_paged(graph)}


def require(found: Ways, pipeline: str, model: str) -> None:
    """Refuse a build for a way that there is not."""
    hindrance = found[pipeline]
    if hindrance is not None:
        raise refusal(hindrance, pipeline, model)


def refusal(hindrance: Hindrance, pipeline: str, model: str) -> SpecError:
    message = f"openvino-genai cannot run `{model}` {pipeline}: {hindrance}"
    other = "--pipeline stateful" if pipeline == PAGED_WAY else "`tfm run`, or OpenVINO itself,"
    span = None if hindrance.node is None else hindrance.node.span
    return one("T735", message, span, help=f"without this option the build says what can run it; {other} may")


def is_paged(model: openvino.Model) -> bool:
    """Whether the runtime's own transformation puts paged attention in the place of all of a model's attention."""
    clone = model.clone()
    try:
        paged_attention_transformation(clone)
    except RuntimeError:
        return False
    kinds = {node.get_type_name() for node in clone.get_ordered_ops()}
    return "PagedAttentionExtension" in kinds and not kinds & {"ScaledDotProductAttention", "ReadValue"}


def _no_text_to_text(graph: Graph, tokens: str, encoder: Graph | None) -> Hindrance | None:
    inputs = [region.node(place) for region in (encoder, graph) if region is not None for place in region.inputs]
    for node in inputs:
        if node.attributes["name"] not in (tokens, MASK, POSITIONS):
            return Hindrance(f"it gives a model tokens and nothing else, and not `{node.attributes['name']}`", node)
        if node.attributes["name"] == tokens and (node.type.dtype, len(node.type.dims)) != ("int", 2):
            return Hindrance(f"it gives a model tokens, and `{tokens}` is {node.type}", node)
    (_, value), *others = graph.outputs
    if others or graph.type(value).dtype != "float" or len(graph.type(value).dims) != 3:
        return Hindrance("it takes one output from a model, [batch, seq, vocab]", graph.node(value))
    return None


def _not_paged(graph: Graph) -> Hindrance | None:
    """The first node that paged attention would leave without its state, or whose mask it would drop."""
    attentions = []
    for node in graph.nodes():
        if node.op == "attend":
            how = told(graph, node)
            if not isinstance(how, Told):
                return Hindrance(f"paged attention has no place for what it does: {how}", node)
            attentions.append(node)
    reading = {value.node for node in attentions for value in node.inputs[1:3] if value is not None}
    for node in graph.nodes():
        if node.op in STATEFUL and node.id not in reading:
            return Hindrance("it remembers what is no key or value of an attention", node)
    if not attentions:
        return Hindrance("it has no attention")
    return None
