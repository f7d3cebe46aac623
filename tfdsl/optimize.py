"""Running passes on a loaded model: those of a plan, those that are asked for by name, or those up to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import did_you_mean, one
from tfdsl.passes import PASSES, Report, Request, run
from tfdsl.passes.incremental import incremental
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.plans import parse_request

if TYPE_CHECKING:
    from tfdsl.model import Model

# What targets do to a graph before they lower it; no plan asks for these, but one may want to see their outcome.
LOWERING: dict[str, Callable[[Graph], Graph]] = {
    "unroll": unroll,
    "lower_masks": lower_masks,
    "lower_linear_attention": lower_linear_attention,
    "incremental": incremental,
}


def optimize(
    model: Model, passes: Sequence[str] = (), plan: str | None = None, after: str | None = None
) -> tuple[Graph, list[Report]]:
    """The graph after the passes of a plan and then those of `passes`, each written as in a plan; and their reports.

    `after` names the last to be run; where no others are asked for, it is run alone. Raises `SpecError`.
    """
    requests = model.plan(plan).optimize if plan is not None else []
    requests = requests + [parse_request(text, model.module, model.parameters) for text in passes]
    if after is None:
        return run(model.graph, requests)
    if plan is not None or passes:
        return run(model.graph, _up_to(after, requests))
    if after in LOWERING:
        return LOWERING[after](model.graph), []
    if after not in PASSES:
        known = [*PASSES, *LOWERING]
        raise one(
            "T602", f"there is no pass `{after}`", help=did_you_mean(after, known, f"they are {', '.join(known)}")
        )
    return run(model.graph, [parse_request(after, model.module, model.parameters)])


def _up_to(name: str, requests: list[Request]) -> list[Request]:
    """The requests before and including the last one of a name."""
    names = [request.name for request in requests]
    if name not in names:
        raise one("T602", f"`{name}` is none of the passes to be run", help=did_you_mean(name, names, ", ".join(names)))
    return requests[: len(names) - names[::-1].index(name)]
