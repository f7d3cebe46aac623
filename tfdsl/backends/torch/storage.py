"""Writing the weights of a module as safetensors, tensor by tensor, or referring to a file that has just them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfdsl.files import atomic_file
from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph
from tfdsl.ir.graph import weights as weights_of
from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.files import WeightFile, contents
from tfdsl.weights.linking import check_linked, hard_link
from tfdsl.weights.source import source_of
from tfdsl.weights.storing import Storing
from tfdsl.weights.writing import require_room, write_contents


def write(path: Path, graph: Graph, weights: Mapping[str, Any], storing: Storing | None = None) -> None:
    """Write the weights of a materialised graph to a safetensors file, floats in the element type that is asked for.

    With links the file is another name of the one that the weights came from. Raises `SpecError`.
    """
    storing = storing or Storing()
    source = source_of(weights)
    found: dict[str, Content] = {}
    for weight in weights_of(graph):
        shape = tuple(evaluate(dim, {}) for dim in weight.type.dims)
        dtype = storing.spelled if weight.type.dtype == "float" else "I8"
        found |= {name: Content(source, name, shape, dtype) for name in weight.paths()}
    if storing.link:
        _link(path, found, storing)
        return
    with atomic_file(path) as temporary:
        total = sum(content.count for content in found.values())
        require_room(path.parent, total)
        write_contents(temporary, found, storing.meter(total))


def _link(path: Path, found: Mapping[str, Content], storing: Storing) -> None:
    """Give the file that has all tensors under these names, and no others, another name."""
    places = {name: content.place for name, content in found.items()}
    storing.linked += check_linked(found.values(), (found[name] for name, place in places.items() if place))
    file = next(place.file for place in places.values() if place)
    there = WeightFile(file, contents(file))
    if there.entries.keys() != found.keys() or any(places[name] != there.place(name) for name in found):
        raise one(
            "T717",
            f"`{file}` has other tensors than the module, under other names, or of another element type",
            note="PyTorch reads weights by their names, from a file that has just them",
            help="build without --link",
        )
    if not hard_link(file, path):
        raise one("T718", f"`{file}` cannot get another name at `{path}`", help="build without --link")
