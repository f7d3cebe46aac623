"""Linear maps of the same tensor as one: the gate of a feed-forward network and what it lets through are one product."""

from __future__ import annotations

from tfdsl.ir.graph import Graph, Node, Value


def join_linears(graph: Graph) -> Graph:
    """A flat graph in which two linear maps of one tensor, if there are no more of it, are one map whose result is cut apart.

    Their weights stay what they are, and are put together by a node. No more than two: to cut queries, keys and values apart
    takes longer than one product for three saves (`tools/bench_decode.py --only openvino`). Maps whose weights serve others
    too are left alone, and so are those that give an output of the model.
    """
    graph = graph.copy()
    serving: dict[str, set[str]] = {}  # the ops that read the weight of each path
    for node in graph.nodes():
        if node.op == "weight":
            users = {user.op for user, _ in graph.users(Value(node.id))}
            serving.setdefault(node.attributes["path"], set()).update(users)
    readers: dict[tuple[Value, bool], list[Node]] = {}
    for node in graph.nodes():
        if node.op == "linear" and _can_join(graph, node, serving):
            x, _, bias = node.inputs
            assert x is not None
            readers.setdefault((x, bias is None), []).append(node)
    for nodes in readers.values():
        if len(nodes) == 2:
            _join(graph, nodes)
    return graph


def _can_join(graph: Graph, node: Node, serving: dict[str, set[str]]) -> bool:
    if graph.is_result(Value(node.id)):
        return False
    weights = [graph.node(value) for value in node.inputs[1:] if value is not None]
    return all(each.op == "weight" and serving[each.attributes["path"]] == {"linear"} for each in weights)


def _join(graph: Graph, nodes: list[Node]) -> None:
    first = nodes[0]
    sizes = tuple(node.type.dims[-1] for node in nodes)
    joined: list[Value | None] = [first.inputs[0]]
    for place in (1, 2):
        if first.inputs[place] is None:
            joined.append(None)
            continue
        parts = [node.inputs[place] for node in nodes]
        joined.append(Value(graph.add("concat", parts, {"axis": 0}, like=first).id))
    whole = graph.add("linear", joined, {"out": sum(sizes), "bias": first.inputs[2] is not None}, like=first)
    cut = graph.add("split", (Value(whole.id),), {"sizes": sizes, "axis": len(whole.type.dims) - 1}, like=first)
    for index, node in enumerate(nodes):
        graph.redirect(Value(node.id), Value(cut.id, index))
        graph.remove(node)
