"""Soundness of the analysis: whatever graph it lets through decodes to what one pass gives, whatever ops it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from op_cases import Flat
from test_incremental import check, expected, inputs_of

from tfdsl.ir import masks
from tfdsl.ir.dims import DimError, symbol
from tfdsl.ir.graph import Graph, Type, Value
from tfdsl.ir.masks import Joined, Term
from tfdsl.ir.op import ShapeError
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.incremental import incremental
from tfdsl.weights import trial

BATCH, SEQ = symbol("batch"), symbol("seq")
ROWS = Type("float", (BATCH, SEQ, 4))
HEADS = Type("float", (BATCH, 2, SEQ, 2))
PAIRS = Type("float", (BATCH, 2, SEQ, SEQ))
TURNED = Type("float", (BATCH, 4, SEQ))
SEEN = Type("bool", (SEQ, SEQ))
COUNTS = Type("int", (SEQ,))
_RELATIONS = ("le", "lt", "ge", "gt", "eq")
_MASKS = (
    None,
    masks.CAUSAL,
    Joined("&", masks.CAUSAL, Term("window", (3,))),
    Joined("&", masks.CAUSAL, Joined("|", Term("window", (2,)), Term("global_tokens", (1,)))),
    Joined("|", masks.CAUSAL, Term("window", (2,))),
    Joined("&", masks.CAUSAL, Term("strided", (2,))),
)


class Maker:
    """Adds one random node after the other to a graph of one region."""

    def __init__(self, draw: Any):
        self.draw, self.flat = draw, Flat("Random")
        self.values: dict[Type, list[Value]] = {}
        x = self.flat.input("x", BATCH, SEQ, 4)
        self.know(x)
        self.know(self.flat("positions", x, axis=1))
        self.weights = 0

    def one(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def know(self, value: Value) -> Value:
        self.values.setdefault(self.flat.graph.type(value), []).append(value)
        return value

    def pick(self, type_: Type) -> Value:
        return self.draw(st.sampled_from(self.values[type_]))

    def has(self, type_: Type) -> bool:
        return bool(self.values.get(type_))

    def add(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.know(self.flat(op, *inputs, **attributes))

    def weight(self, *shape: int) -> Value:
        self.weights += 1
        return self.flat.weight(f"w{self.weights}", *shape)

    def number(self, *numbers: float) -> Value:
        number = self.one(*numbers)
        return self.flat("constant", value=number, dtype="int" if isinstance(number, int) else "float")

    def step(self) -> None:
        kinds = [name for name in dir(self) if name.startswith("do_")]
        getattr(self, self.one(*kinds))()

    def do_elementwise(self) -> None:
        type_ = self.one(*(each for each in (ROWS, HEADS, TURNED) if self.has(each)))
        self.add(self.one("add", "mul", "sub", "maximum"), self.pick(type_), self.pick(type_))

    def do_unary(self) -> None:
        self.add(self.one("tanh", "sigmoid", "neg"), self.pick(self.one(*(t for t in (ROWS, TURNED) if self.has(t)))))

    def do_linear(self) -> None:
        self.add("linear", self.pick(ROWS), self.weight(4, 4), self.one(None, self.weight(4)), out=4)

    def do_norm(self) -> None:
        type_ = self.one(*(each for each in (ROWS, TURNED) if self.has(each)))
        self.add("rms_norm", self.pick(type_), None, scale=False)

    def do_heads(self) -> None:
        self.add("rearrange", self.pick(ROWS), pattern="b s (h d) -> b h s d", sizes=(("h", 2),))

    def do_whole(self) -> None:
        if self.has(HEADS):
            self.add("rearrange", self.pick(HEADS), pattern="b h s d -> b s (h d)")

    def do_turn(self) -> None:
        self.add("swap", self.pick(self.one(*(t for t in (ROWS, TURNED) if self.has(t)))), first=1, second=2)

    def do_attend(self) -> None:
        if self.has(HEADS):
            mask = self.one(*_MASKS)
            allowed = self.one(None, self.pick(SEEN)) if self.has(SEEN) else None
            attributes = {} if mask is None else {"mask": mask}
            q, k, v = (self.pick(HEADS) for _ in range(3))
            self.add("attend", q, k, v, None, allowed, None, **attributes)

    def do_linear_attend(self) -> None:
        if self.has(HEADS):
            self.add("linear_attend", self.pick(HEADS), self.pick(HEADS), self.pick(HEADS), None)

    def do_convolve(self) -> None:
        if self.has(TURNED):
            kernel = self.one(1, 2, 3)
            padding = self.one((kernel - 1, 0), (kernel - 1, kernel - 1), (0, kernel - 1), (0, 0), (kernel, 0))
            bias = self.one(None, self.weight(4))
            settings_ = {"out": 4, "kernel": kernel, "padding": padding, "groups": self.one(1, 4)}
            weight = self.weight(4, 4 // settings_["groups"], kernel)
            self.add("conv1d", self.pick(TURNED), weight, bias, **settings_)

    def do_pad(self) -> None:
        value = self.pick(self.any_length())
        axis = self.axis(value)
        before, after, fill = self.one(0, 1, 2), self.one(0, 0, 1), self.one(0.0, 0.0, 1.0)
        self.add("pad", value, axis=axis, before=before, after=after, value=fill)

    def do_slice(self) -> None:
        value = self.pick(self.any_length())
        axis = self.axis(value)
        size = self.flat.graph.type(value).dims[axis]
        self.add("slice", value, axis=axis, start=self.one(0, 0, 1), stop=size - self.one(0, 1, 2))

    def do_join(self) -> None:
        value = self.pick(self.any_length())
        axis = self.axis(value)
        dims = list(self.flat.graph.type(value).dims)
        dims[axis] = self.one(1, 2)
        other = self.flat("expand", self.number(0.0, 0.0, 1.0), shape=tuple(dims))
        self.add("concat", *self.one((other, value), (value, other)), axis=axis)

    def do_cumsum(self) -> None:
        self.add("cumsum", self.pick(ROWS), axis=self.one(1, 2))

    def do_roll(self) -> None:
        self.add("roll", self.pick(ROWS), shift=1, axis=self.one(1, 2))

    def do_mean(self) -> None:
        mean = self.flat(self.one("mean", "max", "sum"), self.pick(ROWS), axis=self.one(1, 2), keep=True)
        self.add("mul", self.pick(ROWS), mean)

    def do_positions(self) -> None:
        self.add(self.one("add", "mul", "maximum"), self.pick(COUNTS), self.number(0, 1, 2))
        number = self.flat("cast", self.pick(COUNTS), to="float")
        self.add("mul", self.pick(ROWS), self.flat("rearrange", number, pattern="s -> s 1"))

    def do_see(self) -> None:
        q = self.flat("rearrange", self.pick(COUNTS), pattern="q -> q 1")
        k = self.flat("rearrange", self.pick(COUNTS), pattern="k -> 1 k")
        self.add(self.one(*_RELATIONS), *self.one((q, k), (k, q)))

    def do_combine(self) -> None:
        if self.has(SEEN):
            self.add(self.one("both", "either"), self.pick(SEEN), self.pick(SEEN))
            self.add("negate", self.pick(SEEN))

    def do_scores(self) -> None:
        if self.has(HEADS):
            self.add("matmul", self.pick(HEADS), self.flat("swap", self.pick(HEADS), first=2, second=3))

    def do_hide(self) -> None:
        if self.has(PAIRS) and self.has(SEEN):
            operands = (self.pick(PAIRS), self.number(-1e9, 0.0, -3.0))
            self.add("where", self.pick(SEEN), *self.one(operands, operands[::-1]))

    def do_share(self) -> None:
        if self.has(PAIRS):
            self.add("softmax", self.pick(PAIRS), axis=self.one(2, 3))
            self.add(self.one("mul", "add"), self.pick(PAIRS), self.pick(PAIRS))

    def do_gather_values(self) -> None:
        if self.has(PAIRS) and self.has(HEADS):
            self.add("matmul", self.pick(PAIRS), self.pick(HEADS))

    def any_length(self) -> Type:
        """A type with rows [batch, n, 4] or turned ones [batch, 4, n], n being any number of positions."""
        found = [each for each in self.values if len(each.dims) == 3 and each.dtype == "float"]
        return self.draw(st.sampled_from(sorted(found, key=str)))

    def axis(self, value: Value) -> int:
        dims = self.flat.graph.type(value).dims
        return next((axis for axis in (1, 2) if not isinstance(dims[axis], int)), 1)


@st.composite
def graphs(draw: Any) -> Graph:
    maker = Maker(draw)
    for _ in range(draw(st.integers(4, 22))):
        try:
            maker.step()
        except (ShapeError, DimError):
            continue  # sizes that do not go together
    return maker.flat.give(maker.values[ROWS][-1])


def test_what_is_let_through_decodes() -> None:
    compared = 0

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(graphs(), st.booleans(), st.sampled_from(("masked", "kept")))
    def decodes(graph: Graph, last: bool, windows: str) -> None:
        nonlocal compared
        try:
            decoder = incremental(graph, logits="last" if last else "all", windows=windows)
        except SpecError as error:
            assert {each.code for each in error.diagnostics} == {"T720"}
            return
        weights = trial(graph, 0)
        try:
            rows = expected(graph, weights, inputs_of(graph))
        except SpecError:
            return  # a row is too short for what is cut off of it
        with np.errstate(all="ignore"):
            assume(all(np.isfinite(row).all() for row in rows))
            check(graph, decoder, weights, last=last)
        compared += 1

    decodes()
    assert compared > 30, "nearly all graphs were refused, so that nothing was tried"
