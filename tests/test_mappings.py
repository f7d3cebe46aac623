"""Mappings: what left sides stand for, what fields say of parameters and back, and that layouts have exact inverses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdsl.checkpoints.configuration import check_values, read_configuration, settle
from tfdsl.checkpoints.describing import write_configuration
from tfdsl.checkpoints.family import Family, families_of
from tfdsl.checkpoints.layout import pieces, shape_of
from tfdsl.checkpoints.names import pattern
from tfdsl.checkpoints.tensors import assemble
from tfdsl.checkpoints.weight_rules import Change, OurWeight, Tensor
from tfdsl.ir.elaborate import elaborate
from tfdsl.language import modules
from tfdsl.language.diagnostics import Collector, SpecError

# --- names -----------------------------------------------------------------------------------------------------------


def test_a_left_side_stands_for_all_its_spellings() -> None:
    names = pattern("[model.]layers.{i}.[weight|gamma].{j}")
    assert names.placeholders == ["i", "j"]
    assert names.match("layers.12.gamma.0") == {"i": 12, "j": 0}
    assert names.match("model.layers.0.weight.3") == {"i": 0, "j": 3}
    for wrong in (
        "layers.01.weight.0",
        "layers.x.weight.0",
        "layers.1.beta.0",
        "layersx1xweightx0",
        "layers.1.weight.0.x",
    ):
        assert names.match(wrong) is None
    assert names.spellings({"i": 2, "j": 7}) == [
        "model.layers.2.weight.7",
        "model.layers.2.gamma.7",
        "layers.2.weight.7",
        "layers.2.gamma.7",
    ]
    assert pattern("[|new.]theta?", field=True).spellings() == ["theta", "new.theta"]
    assert pattern("theta?", field=True).optional
    assert pattern("head.*").match("head.dense.weight") == {}


@pytest.mark.parametrize("text", ["a.{i", "a.{i}.{i}", "a.[b", "a.[]", "a.{1}", "a]"])
def test_a_left_side_that_says_nothing(text: str) -> None:
    with pytest.raises(ValueError):
        pattern(text)


# --- fields ----------------------------------------------------------------------------------------------------------

SPEC = """
import rope_yarn from "std/positions.tfm"

model M(x: [batch, 2, seq, width]) -> [batch, 2, seq, width] {
  param width = 8
  param depth = 4
  param heads = 2
  param hidden = 4 * width
  param classes = 10
  param kinds = ["a", "a"]
  param span = 16
  param window = 64
  param mask = causal
  param act: layer = gelu
  param theta = 10_000
  param rotary = rope(base=theta)
  return rotary(x)
}

mapping m for M {
  "config.model_type" -> "m"
  "config.size" -> width
  "config.layers?" -> depth
  "config.head_count" -> set(heads, absent=width / 4)
  "config.inner?" -> hidden
  "config.per_head?" -> width / heads
  "config.id2label?" -> labels(classes, absent=2)
  "config.kinds?" -> choose(kinds, ["one", "a"], ["two", "b"])
  "config.spans?" -> each(i, depth, span)
  "config.one_span?" -> each(i, depth, 2 * span, single=true)
  "config.layer_types?" -> each(i, depth, if i % 2 == 0 then "even" else "odd")
  "config.window?" -> choose(mask, [none, causal], [window, causal & window(window)])
  "config.act?" -> choose(act, ["gelu", gelu], ["gelu_new", gelu(approximate=true)], ["relu", relu])
  "config.[|rope.]theta?" -> theta
  "config.rope.type?" -> choose(rotary, ["default", rope(base=theta)], ["yarn", rope_yarn(base=theta)])
  "config.rope.factor?" -> rotary.factor
  "config.rope.context?" -> rotary.context
  "config.longest?" -> set(rotary.fast, otherwise=ignored)
  "config.norm?" -> one_of("rms", "RMS")
  "config.notes?" -> ignored
}
"""


@pytest.fixture
def family(tmp_path: Path) -> Family:
    (tmp_path / "m.tfm").write_text(SPEC)
    module = modules.load(tmp_path / "m.tfm")
    (found,) = families_of(module.own["M"])
    return found


def read(family: Family, **fields: Any) -> Any:
    """The parameters that a configuration gives. Raises `SpecError`."""
    config, faults, rules = {"model_type": "m", "size": 8, **fields}, Collector(), family.rules().fields
    reading = read_configuration(config, rules, family.declared, faults)
    parameters = reading.parameters()
    faults.check()
    settle(parameters)
    check_values(config, rules, parameters, faults)
    faults.check()
    return parameters


CONFIGURATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"width": 8, "depth": 4, "heads": 2, "hidden": 32, "classes": 2, "kinds": ("a", "a")}),
    ({"size": 12, "inner": None, "layers": None}, {"width": 12, "depth": 4, "heads": 3, "hidden": 48}),
    ({"head_count": None}, {"heads": 2}),
    ({"head_count": 4, "per_head": 2, "inner": 5}, {"heads": 4, "hidden": 5}),
    ({"id2label": {"0": "cat", "1": "dog", "2": "cow"}}, {"classes": 3}),
    ({"kinds": ["two", "one", "two"]}, {"kinds": ("b", "a", "b")}),
    ({"spans": [32, 32, 32], "layers": 3}, {"span": 32}),
    ({"one_span": 32}, {"span": 16}),
    ({"one_span": [32] * 4, "longest": 5}, {"span": 16}),
    ({"layer_types": ["even", "odd", "even", "odd"]}, {}),
    ({"theta": 500.0}, {"theta": 500}),
    ({"rope": {"theta": 500.0}}, {"theta": 500}),
    ({"rope": None}, {}),
    ({"norm": "RMS", "notes": {"any": [1]}, "transformers_version": "4.0"}, {}),
]


@pytest.mark.parametrize(("fields", "wanted"), CONFIGURATIONS)
def test_fields_give_parameters_and_back(family: Family, fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    parameters = read(family, **fields)
    assert {name: parameters[name] for name in wanted} == wanted
    config = {"model_type": "m", "size": 8, **fields}
    assert write_configuration(family, parameters, config, set()) == config
    from_scratch = write_configuration(family, parameters, None, {"F32"})
    again = read(family, **from_scratch)
    assert {name: again[name] for name in wanted} == wanted


def test_layers_and_masks_are_chosen(family: Family) -> None:
    def written(**fields: Any) -> dict[str, Any]:
        found = write_configuration(family, read(family, **fields), None, {"BF16"})
        return {name: found[name] for name in ("act", "window", "rope", "torch_dtype") if name in found}

    assert written() == {"act": "gelu", "window": None, "rope": {"type": "default"}, "torch_dtype": "bfloat16"}
    given = {
        "act": "gelu_new",
        "window": 16,
        "rope": {"type": "yarn", "factor": 4, "context": 32},
        "torch_dtype": "bfloat16",
    }
    assert written(**given) == given
    parameters = read(family, **given)
    assert parameters["window"] == 16
    assert parameters["rotary"].label == "rope_yarn"
    longer = write_configuration(family, read(family, longest=7, **given), None, {"F32"})
    assert longer["longest"] == 7 and "longest" not in write_configuration(family, parameters, None, {"F32"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": None}, "`size` is null"),
        ({"per_head": 3}, "`per_head` is 3, and must be 4"),
        ({"norm": "layer"}, '`norm` is "layer", and must be "rms" or "RMS"'),
        ({"act": "swish"}, '`act` is "swish", which is not understood'),
        ({"kinds": ["one", "three"]}, "which is not understood"),
        ({"spans": [16, 16, 16, 8]}, "`spans` is"),
        ({"spans": [16, 16]}, "`spans` is"),
        ({"layer_types": ["odd"]}, "`layer_types` is"),
        ({"theta": 5, "rope": {"theta": 6}}, "which is the same"),
        ({"rope": {"type": "default", "factor": 2}}, "`rope` has no `factor`"),
        ({"one_span": [16, 16, 16, 8]}, "`one_span` is"),
        ({"one_span": 8}, "`one_span` is 8, and must be"),
        ({"rope": {"type": "yarn", "other": 2}}, "`rope.other` = 2"),
        ({"rope": {"type": "yarn", "context": 32}}, "factor"),
        ({"rope": 7}, "`rope` = 7"),
        ({"size": {"a": 1}}, "sets a parameter"),
        ({"id2label": 3}, "names classes"),
        ({"size": 2**70}, "sets a parameter"),
        ({"depth": 4}, "`depth` = 4"),
        ({"model_type": "n"}, "`model_type`"),
    ],
)
def test_fields_that_do_not_fit(family: Family, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        elaborate(family.declared, _overrides(read(family, **fields)))
    assert message in str(caught.value)


def _overrides(parameters: Any) -> dict[str, Any]:
    return dict(parameters.overrides)


# --- layouts ---------------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: Any) -> tuple[list[Tensor], dict[str, tuple[int, ...]]]:
    """Tensors of theirs that hold two weights of ours between them, each element once."""
    shapes = {"a": (4, 6), "b": (4, 6)}
    found: list[Tensor] = [OurWeight("a", ()), OurWeight("b", ())]
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(found) - 1))
        tree = found.pop(place)
        shape = shape_of(tree, shapes)
        kind = draw(st.sampled_from(["transpose", "permute", "split", "sizes", "concat", "stack"]))
        axis = draw(st.integers(0, len(shape) - 1))
        if kind == "transpose" and len(shape) == 2:
            found.append(Change("transpose", (tree,), {}))
        elif kind == "permute":
            order = tuple(draw(st.permutations(range(len(shape)))))
            found.append(Change("permute", (tree,), {"order": order}))
        elif kind == "split" and shape[axis] % 2 == 0:
            found += [Change("split", (tree,), {"parts": 2, "part": part, "axis": axis}) for part in range(2)]
        elif kind == "sizes" and shape[axis] > 1:
            sizes = (1, shape[axis] - 1)
            found += [Change("split", (tree,), {"sizes": sizes, "part": part, "axis": axis}) for part in range(2)]
        elif kind in ("concat", "stack") and found and shape_of(found[0], shapes) == shape:
            found.append(Change(kind, (tree, found.pop(0)), {"axis": axis}))
        else:
            found.append(tree)
    return found, shapes


@given(trees())
@settings(max_examples=300, deadline=None)
def test_every_change_of_layout_has_an_exact_inverse(made: tuple[list[Tensor], dict[str, tuple[int, ...]]]) -> None:
    found, shapes = made
    random = np.random.default_rng(0)
    ours = {path: random.normal(size=shape) for path, shape in shapes.items()}
    back = {path: np.full(shape, math.nan) for path, shape in shapes.items()}
    for tree in found:
        theirs = assemble(tree, ours)
        assert theirs.shape == shape_of(tree, shapes)
        for piece in pieces(tree, theirs, shapes):
            back[piece.path][tuple(slice(*each) for each in piece.ranges)] = piece.array
    for path, value in ours.items():
        assert np.array_equal(back[path], value)
