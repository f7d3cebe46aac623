"""Random small graphs, for properties that hold of all graphs: any op over values of a few shapes, loops among them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tfdsl.ir import masks
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Constraint, Frame, Graph, Initializer, Type, Value

BATCH, SEQ = symbol("batch"), symbol("seq")
SIZES = ({"batch": 1, "seq": 1}, {"batch": 2, "seq": 3})
SHAPE = Type("float", (BATCH, SEQ, 4))
HEADS = Type("float", (BATCH, 2, SEQ, 2))
POSITIONS = Type("int", (SEQ,))
seeds = st.integers(0, 2**32 - 1)

_UNARY = ("neg", "abs", "tanh", "sigmoid", "relu", "silu", "sin", "cos")
_BINARY = ("add", "sub", "mul", "maximum", "minimum")
_NUMBERS = (0.0, 1.0, 0.5, -2.0)


class _Maker:
    """Adds one random node after the other to a region; `depth` loops are around it."""

    def __init__(self, draw: Any, graph: Graph, depth: int, path: str):
        self.draw, self.graph, self.depth, self.path = draw, graph, depth, path
        self.values: dict[Type, list[Value]] = {}
        self.frames = [Frame(f"{path}a", "Block", {}), Frame(f"{path}a", "Block", {}), Frame(f"{path}b", "Other", {})]

    def know(self, value: Value) -> Value:
        self.values.setdefault(self.graph.type(value), []).append(value)
        return value

    def pick(self, type_: Type) -> Value:
        return self.draw(st.sampled_from(self.values[type_]))

    def add(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        scope = self.draw(st.sampled_from([(), (self.frames[0],), (self.frames[1],), (self.frames[0], self.frames[2])]))
        name = self.draw(st.sampled_from(["", "x", "y"]))
        node = self.graph.add(op, inputs, attributes, name=name, scope=scope)
        values = [self.know(Value(node.id, index)) for index in range(len(node.types))]
        return values[0]

    def weight(self, name: str, *shape: int, init: str = "normal") -> Value:
        star = self.draw(st.booleans()) and self.depth
        path = f"{self.path}{name}" if star else f"shared.{name}"
        return self.add("weight", path=path, shape=shape, init=Initializer(init))

    def constant(self) -> Value:
        return self.add("constant", value=self.draw(st.sampled_from(_NUMBERS)), dtype="float")

    def step(self) -> None:
        kinds = [
            "unary",
            "binary",
            "scale",
            "linear",
            "twist",
            "positions",
            "heads",
            "same",
            "numbers",
            "where",
            "split",
        ]
        kind = self.draw(st.sampled_from([*kinds, "loop"] if self.depth < 2 else kinds))
        getattr(self, f"_{kind}")()

    def _unary(self) -> None:
        self.add(self.draw(st.sampled_from(_UNARY)), self.pick(SHAPE))

    def _binary(self) -> None:
        self.add(self.draw(st.sampled_from(_BINARY)), self.pick(SHAPE), self.pick(SHAPE))

    def _scale(self) -> None:
        inputs = [self.pick(SHAPE), self.constant()]
        self.add(
            self.draw(st.sampled_from(("add", "mul"))), *(inputs if self.draw(st.booleans()) else reversed(inputs))
        )

    def _linear(self) -> None:
        bias = self.weight("fc.bias", 4, init="zeros") if self.draw(st.booleans()) else None
        self.add("linear", self.pick(SHAPE), self.weight("fc.weight", 4, 4), bias, out=4)

    def _twist(self) -> None:
        swapped = self.add("swap", self.pick(SHAPE), first=1, second=2)
        self.add("swap", swapped, first=1, second=2)

    def _positions(self) -> None:
        self.know(self.add("positions", self.pick(SHAPE), axis=1))
        number = self.add("constant", value=self.draw(st.sampled_from((0, 1, 3, SEQ))), dtype="int")
        self.add(self.draw(st.sampled_from(("add", "mul", "maximum"))), self.pick(POSITIONS), number)

    def _heads(self) -> None:
        apart = self.add("rearrange", self.pick(SHAPE), pattern="b s (h d) -> b h s d", sizes=(("h", 2),))
        mask = self.draw(
            st.sampled_from([None, masks.CAUSAL, masks.Joined("&", masks.CAUSAL, masks.Term("window", (2,)))])
        )
        settings = {} if mask is None else {"mask": mask}
        mixed = self.add("attend", apart, self.pick(HEADS), self.pick(HEADS), None, None, None, **settings)
        self.add("rearrange", self.draw(st.sampled_from([apart, mixed])), pattern="b h s d -> b s (h d)")

    def _same(self) -> None:
        self.add("cast", self.pick(SHAPE), to="float")

    def _numbers(self) -> None:
        left, right = self.constant(), self.constant()
        self.add("mul", self.pick(SHAPE), self.add(self.draw(st.sampled_from(_BINARY)), left, right))

    def _where(self) -> None:
        condition = self.add("gt", self.pick(SHAPE), self.constant())
        self.add("where", condition, self.pick(SHAPE), self.pick(SHAPE))

    def _split(self) -> None:
        node = self.graph.add(
            "split", [self.pick(SHAPE)], {"parts": 2, "axis": 2}, name="split", labels=("left", "right")
        )
        self.add("concat", Value(node.id, 1), Value(node.id, 0), axis=2)

    def _loop(self) -> None:
        carried, captured = self.draw(st.integers(1, 2)), self.draw(st.integers(0, 2))
        inputs = [self.pick(SHAPE) for _ in range(carried + captured)]
        name = self.draw(st.sampled_from("gh"))
        path = f"{self.path}{name}{len(self.graph)}"
        variants = self.draw(st.integers(1, 2))
        bodies = [self._body(path, carried, carried + captured) for _ in range(variants)]
        turns = tuple(self.draw(st.lists(st.integers(0, variants - 1), max_size=3)))
        attributes = {"turns": turns, "carried": carried, "path": path, "index": None}
        node = self.graph.add("repeat", inputs, attributes, (SHAPE,) * carried, name=name, bodies=tuple(bodies))
        for index in range(carried):
            self.know(Value(node.id, index))

    def _body(self, path: str, carried: int, count: int) -> Graph:
        graph = Graph(f"{path}.*")
        graph.frame = Frame(f"{path}.*", "Model", {})
        maker = _Maker(self.draw, graph, self.depth + 1, f"{path}.*.")
        for place in range(count):
            node = graph.add("input", (), {"name": f"x{place}"}, (SHAPE,), name=f"x{place}")
            maker.know(Value(node.id))
        maker.heads()
        for _ in range(self.draw(st.integers(0, 4))):
            maker.step()
        total = maker.sum(maker.values[SHAPE][-3:])
        graph.outputs = [("x0", total), ("x1", maker.pick(SHAPE))][:carried]
        return graph

    def sum(self, values: list[Value]) -> Value:
        """All of some values in one, so that none of them is dead."""
        total = values[0]
        for value in values[1:]:
            total = self.add("add", total, value)
        return total

    def heads(self) -> None:
        """Something of each shape to begin with."""
        self.add("rearrange", self.pick(SHAPE), pattern="b s (h d) -> b h s d", sizes=(("h", 2),))
        self.add("positions", self.pick(SHAPE), axis=1)


@st.composite
def graphs(draw: Any) -> Graph:
    """A model of up to eight steps, with one or two outputs."""
    graph = Graph("Random")
    graph.frame = Frame("", "Random", {})
    maker = _Maker(draw, graph, 0, "")
    for name in ("first", "second"):
        maker.know(Value(graph.add("input", (), {"name": name}, (SHAPE,), name=name).id))
    maker.heads()
    for _ in range(draw(st.integers(1, 8))):
        maker.step()
    latest = maker.values[SHAPE][-5:]
    total = maker.sum(latest[: draw(st.integers(1, 5))])
    graph.outputs = [("output", total), ("other", maker.pick(SHAPE))]
    return graph


# --- numbers and positions -------------------------------------------------------------------------------------------

_CONSTANTS: dict[str, tuple[Any, ...]] = {"int": (0, 1, 3, -2, 7, SEQ), "float": (0.0, 0.5, 4.0, -3.0)}
_PAIRS = {
    "int": ("add", "sub", "mul", "maximum", "minimum", "floordiv", "mod"),
    "float": ("add", "sub", "mul", "maximum", "minimum", "div"),
    "bool": ("both", "either"),
}
_SINGLE = {"int": ("neg", "abs"), "float": ("neg", "abs", "floor"), "bool": ("negate",)}
_COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")


class _Indices:
    """Adds random nodes to a region that compute with whole numbers [seq] which are given."""

    def __init__(self, draw: Any, graph: Graph, given: list[Value]):
        self.draw, self.graph = draw, graph
        self.values: dict[str, list[Value]] = {"int": list(given), "float": [], "bool": []}
        for dtype, numbers in _CONSTANTS.items():
            for number in numbers:
                self.add("constant", value=number, dtype=dtype)

    def add(self, op: str, *inputs: Value, **attributes: Any) -> Value:
        node = self.graph.add(op, inputs, attributes)
        self.values[node.type.dtype].append(Value(node.id))
        return Value(node.id)

    def pick(self, dtype: str) -> Value:
        return self.draw(st.sampled_from(self.values[dtype]))

    def step(self) -> None:
        dtype = self.draw(st.sampled_from([each for each, values in self.values.items() if values]))
        value = self.pick(dtype)
        kinds = ["pair", "single", "cast", "where", *(["compared"] if dtype != "bool" else ())]
        kinds += ["most", "first"] if dtype != "bool" and self.graph.type(value).dims else []
        getattr(self, f"_{self.draw(st.sampled_from(kinds))}")(dtype, value)

    def _pair(self, dtype: str, value: Value) -> None:
        op, other = self.draw(st.sampled_from(_PAIRS[dtype])), self.pick(dtype)
        if op in ("floordiv", "mod"):  # by zero, there is no result
            other = self.add("maximum", other, self.add("constant", value=1, dtype="int"))
        self.add(op, value, other)

    def _single(self, dtype: str, value: Value) -> None:
        self.add(self.draw(st.sampled_from(_SINGLE[dtype])), value)

    def _cast(self, dtype: str, value: Value) -> None:
        self.add("cast", value, to=self.draw(st.sampled_from(["int", "float", "bool"])))

    def _where(self, dtype: str, value: Value) -> None:
        condition = self.add("gt", self.pick("int"), self.pick("int"))
        self.add("where", condition, value, self.pick(dtype))

    def _compared(self, dtype: str, value: Value) -> None:
        self.add(self.draw(st.sampled_from(_COMPARED)), value, self.pick(dtype))

    def _most(self, dtype: str, value: Value) -> None:
        self.add(self.draw(st.sampled_from(["max", "min"])), value, axis=0)

    def _first(self, dtype: str, value: Value) -> None:
        self.add("select", value, axis=0, index=0)

    def probe(self) -> Value:
        """How many comparisons with numbers hold, of all values: it tells where one is thought to be what it is not."""
        total = self.values["int"][0]
        for value in [*self.values["int"], *self.values["float"]]:
            dtype = self.graph.type(value).dtype
            for number in self.draw(st.lists(st.integers(-9, 19), min_size=2, max_size=2)):
                limit = self.add("constant", value=number if dtype == "int" else float(number), dtype=dtype)
                op = self.draw(st.sampled_from(_COMPARED))
                total = self.add("add", total, self.add("cast", self.add(op, value, limit), to="int"))
        return total


@st.composite
def index_graphs(draw: Any) -> Graph:
    """Graphs that compute with positions in texts of bounded length, in a loop too; every value is an output."""
    graph = Graph("Indices")
    graph.constraints = [Constraint("<", 2 * SEQ + 1, draw(st.integers(4, 19)))]
    x = Value(graph.add("input", (), {"name": "x"}, (Type("float", (BATCH, SEQ)),)).id)
    outer = _Indices(draw, graph, [Value(graph.add("positions", [x], {"axis": 1}).id)])
    for _ in range(draw(st.integers(1, 14))):
        outer.step()
    if draw(st.booleans()):
        body = Graph("h")
        given = [Value(body.add("input", (), {"name": name}, (POSITIONS,), name=name).id) for name in "np"]
        inner = _Indices(draw, body, given)
        for _ in range(draw(st.integers(1, 8))):
            inner.step()
        body.outputs = [("n", inner.probe())]
        read = [value for value in outer.values["int"] if graph.type(value) == POSITIONS]
        inputs = [draw(st.sampled_from(read)), draw(st.sampled_from(read))]
        attributes = {"turns": (0, 0), "carried": 1, "path": "h"}
        looped = graph.add("repeat", inputs, attributes, (POSITIONS,), bodies=(body,))
        outer.values["int"].append(Value(looped.id))
    outer.probe()
    graph.outputs = [(f"y{each.node}", each) for values in outer.values.values() for each in values]
    return graph
