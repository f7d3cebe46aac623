"""What a build stores: `prune` and `quantize` nodes leave the graph, and their results take the place of the weights.

A pruned weight keeps its path. A quantised one becomes `dequantize(weight(path), weight(path + "_scale"))`, of whole
numbers (int8) and float32 scales. A dequantised weight that is pruned after that is stored as the floats it becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdsl.ir.graph import Graph, Loop, Node, Type, Value, all_paths, turns_of
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one
from tfdsl.weights.compression import dequantize, prune, quantize
from tfdsl.weights.source import Array, Place, Source, source_of

Loops = tuple[Loop, ...]
Step = tuple[Any, ...]  # an op and its settings, or ("result", index) for one of several results
Chain = tuple[Step, ...]

SCALE = "_scale"
_BUILD_TIME = ("prune", "quantize")


@dataclass(frozen=True)
class Recipe:
    """How a stored tensor comes from a weight: which one, and the steps from it."""

    source: str
    chain: Chain = ()


class Stored(Source):
    """The tensors to store by path, each computed when it is read, so that a large model is never in memory at once."""

    def __init__(self, recipes: Mapping[str, Recipe], weights: Mapping[str, Array]):
        self._recipes, self._weights = recipes, source_of(weights)
        self._last: tuple[Recipe, tuple[Array, ...]] | None = None

    def dtype(self, name: str) -> str:
        recipe = self._recipes[name]
        if not recipe.chain:
            return self._weights.dtype(recipe.source)
        return "I8" if recipe.chain[-1] == ("result", 0) else "F32"

    def place(self, name: str) -> Place | None:
        recipe = self._recipes[name]
        return None if recipe.chain else self._weights.place(recipe.source)

    def raw(self, name: str) -> Array:
        recipe = self._recipes[name]
        if not recipe.chain:
            return self._weights.raw(recipe.source)
        if recipe.chain[-1][0] != "result":
            return _follow(recipe.chain, self._weights[recipe.source])[0]
        # Whole numbers and scales come of one computation, and are mostly read one after the other.
        whole = Recipe(recipe.source, recipe.chain[:-1])
        if self._last is None or self._last[0] != whole:
            self._last = None  # not both in memory
            self._last = (whole, _follow(whole.chain, self._weights[recipe.source]))
        return self._last[1][recipe.chain[-1][1]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


def needs_values(graph: Graph) -> Node | None:
    """The first node that can only be computed when the values of the weights are there, if there is one."""
    return next((node for region in graph.regions() for node in region.nodes() if node.op in _BUILD_TIME), None)


def materialise(graph: Graph, weights: Mapping[str, Array]) -> tuple[Graph, Stored]:
    """The graph over the tensors that a build stores, and those tensors by path; `graph` is left as it is."""
    twin = graph.copy()
    recipes: dict[str, Recipe] = {}
    found = [
        (region, node, loops) for region, loops in _regions(twin, ()) for node in region.nodes() if node.op == "weight"
    ]
    # Those that nothing reads come last: where others read the same weight, these say nothing about its form.
    found.sort(key=lambda each: not each[0].users(Value(each[1].id)))
    for region, node, loops in found:
        _settle(region, node, loops, recipes)
    return twin, Stored(recipes, weights)


def _regions(graph: Graph, loops: Loops) -> Iterator[tuple[Graph, Loops]]:
    """Every region with the turns of the loops around it, outermost first."""
    yield graph, loops
    for node in graph.nodes():
        for variant, body in enumerate(node.bodies):
            yield from _regions(body, (*loops, Loop(node.attributes["path"], turns_of(node, variant))))


def _settle(region: Graph, weight: Node, loops: Loops, recipes: dict[str, Recipe]) -> None:
    """Put what is stored in the place of a weight and of the build-time nodes after it, and note how it is made."""
    path = weight.attributes["path"]
    ends = list(_ends(region, Value(weight.id), ()))
    if not ends and all(concrete in recipes for concrete in all_paths(path, loops)):
        region.remove(weight)
        return
    chains = {chain[:-1] if chain and chain[-1][0] == "result" else chain for chain, _ in ends} or {()}
    if len(chains) > 1:
        raise _conflict(path, weight)
    (chain,) = chains
    quantised = bool(chain) and chain[-1][0] == "quantize"
    forms = {path: (*chain, ("result", 0)), path + SCALE: (*chain, ("result", 1))} if quantised else {path: chain}
    for form, steps in forms.items():
        for concrete, source in zip(all_paths(form, loops), all_paths(path, loops), strict=True):
            recipe = Recipe(source, steps)
            if recipes.setdefault(concrete, recipe) != recipe:
                raise _conflict(concrete, weight)
    if chain:
        _replace(region, weight, [value for _, value in ends], quantised)


def _ends(region: Graph, value: Value, chain: Chain) -> Iterator[tuple[Chain, Value]]:
    """The values that ordinary nodes read, each with the build-time steps that lead to it from the weight."""
    users = [user for user, _ in region.users(value)]
    onward = [user for user in users if _at_build_time(region, user)]
    if len(onward) < len(users) or region.is_result(value):
        yield chain, value
    for user in onward:
        settings = OPS[user.op].fill(user.attributes)
        if user.op == "quantize":
            following = (*chain, ("quantize", settings.bits, settings.group))
            for index in range(2):
                yield from _ends(region, Value(user.id, index), (*following, ("result", index)))
        elif user.op == "prune":
            yield from _ends(region, Value(user.id), (*chain, ("prune", settings.sparsity, settings.pattern)))
        elif chain[-1] == ("result", 0):  # the scales arrive at the same node, which is followed once
            yield from _ends(region, Value(user.id), (*chain[:-1], ("dequantize",)))


def _at_build_time(region: Graph, node: Node) -> bool:
    """Whether a node that reads a weight is computed when the model is built."""
    if node.op == "dequantize":
        return any(user.op in _BUILD_TIME for user, _ in region.users(Value(node.id)))
    return node.op in _BUILD_TIME


def _replace(region: Graph, weight: Node, ends: list[Value], quantised: bool) -> None:
    first = Value(weight.id)
    scale: Value | None = None
    for end in ends:
        source = region.node(end)
        if not quantised:
            region.redirect(end, first)
        elif end.index == 0:
            weight.types = (Type("int", weight.type.dims),)
            region.redirect(end, first)
        else:
            if scale is None:
                dims = source.types[1].dims
                attributes = {**weight.attributes, "path": weight.attributes["path"] + SCALE, "shape": dims}
                scale = Value(region.add("weight", (), attributes, (Type("float", dims),), like=weight).id)
            region.redirect(end, scale)
    _remove_unread(region)


def _remove_unread(region: Graph) -> None:
    for node in reversed(region.nodes()):
        unread = not any(region.users(Value(node.id, index)) for index in range(len(node.types)))
        results = any(region.is_result(Value(node.id, index)) for index in range(len(node.types)))
        if node.op in (*_BUILD_TIME, "dequantize") and unread and not results:
            region.remove(node)


def _follow(chain: Chain, weight: Array) -> tuple[Array, ...]:
    """The results of a chain of steps from the values of a weight."""
    values: tuple[Array, ...] = (np.asarray(weight, dtype=np.float32),)
    for step, *settings in chain:
        if step == "prune":
            values = (prune(values[0], *settings),)
        elif step == "quantize":
            values = quantize(values[0], *settings)
        else:
            values = (dequantize(*values),)
    return values


def _conflict(path: str, weight: Node) -> Exception:
    return one(
        "T808",
        f"`{path}` would have to be stored in two forms",
        weight.span,
        note="it is pruned or quantised where some read it, and not, or otherwise, where others do",
        help="let the pattern of the pass take in every use of the weight",
    )
