"""Mixtures of experts: `route`, the blocks of `std/moe.tfm`, and the shipped models, against independent implementations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference
from tfdsl.ir.graph import Graph
from tfdsl.passes.unroll import count_unrolled, unroll
from tfdsl.report import report
from tfdsl.weights import trial

SPECS = Path(__file__).parent.parent / "specs"
Arrays = dict[str, Any]

EXPERT = """block Expert(x: [..., width]) -> [..., width] {
  return linear(x, out=12) as up |> gelu |> linear(out=width) as down
}
"""
ROUTE = (
    EXPERT
    + """model M(x: [batch, seq, 8], chosen: int[batch, seq, 2], weight: [batch, seq, 2]) -> [batch, seq, 8] {
  return route(x, chosen, weight, expert=Expert, count=3)
}
"""
)


def load(tmp_path: Path, text: str, model: str | None = None, **parameters: Any) -> Graph:
    path = tmp_path / "spec.tfm"
    path.write_text(text, "utf-8")
    return tfdsl.load(path, model, **parameters).graph


def routed(seed: int = 0) -> Arrays:
    """Rows, choices (some of them twice the same, some of no expert) and weights."""
    generator = np.random.default_rng(seed)
    return {
        "x": generator.normal(size=(2, 5, 8)).astype(np.float32),
        "chosen": generator.integers(-1, 4, (2, 5, 2)),
        "weight": generator.normal(size=(2, 5, 2)).astype(np.float32),
    }


def test_each_row_is_the_weighted_sum_of_its_experts(tmp_path: Path) -> None:
    """By hand, row by row and slot by slot."""
    from math import erf

    graph = load(tmp_path, ROUTE)
    weights, inputs = trial(graph, 0), routed()
    wanted = np.zeros((2, 5, 8))
    for place in np.ndindex(2, 5):
        for slot in range(2):
            expert = inputs["chosen"][place][slot]
            if 0 <= expert < 3:
                h = inputs["x"][place].astype(np.float64)
                h = weights[f"experts.{expert}.up.weight"] @ h + weights[f"experts.{expert}.up.bias"]
                h = h * np.array([0.5 * (1 + erf(each / 2**0.5)) for each in h])
                h = weights[f"experts.{expert}.down.weight"] @ h + weights[f"experts.{expert}.down.bias"]
                wanted[place] += inputs["weight"][place][slot] * h
    found = reference.run(graph, weights, inputs)["output"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_unrolled_it_is_every_expert_over_all_rows(tmp_path: Path) -> None:
    graph = load(tmp_path, ROUTE)
    weights, inputs = trial(graph, 0), routed()
    flat = unroll(graph)
    assert not any(node.op == "route" for node in flat.nodes())
    assert len(flat) == count_unrolled(graph)
    wanted = reference.run(graph, weights, inputs)["output"]
    np.testing.assert_allclose(reference.run(flat, weights, inputs)["output"], wanted, rtol=0, atol=1e-12)


def test_operations_are_counted_for_the_chosen_only(tmp_path: Path) -> None:
    counted = report(load(tmp_path, ROUTE), sizes={"batch": 2, "seq": 5})
    each = 8 * 12 + 12 + 12 * 8 + 8
    assert counted.parameters == 3 * each
    assert counted.flops == 10 * 2 * (2 * 2 * 8 * 12 + 8 * 12) + 10 * 2 * 2 * 8


@pytest.mark.parametrize(
    "call",
    [
        "experts(x, chosen, weight)",
        "x |> experts(chosen, weight)",
        "route(x, chosen, weight, expert=Expert, count=3)",
        "route(x, chosen, weight, expert=Expert, count=3) as experts",
    ],
)
def test_it_is_a_layer_like_others(tmp_path: Path, call: str) -> None:
    bind = "experts = route(expert=Expert, count=3)" if "experts(" in call else ""
    text = ROUTE.replace("  return route(x, chosen, weight, expert=Expert, count=3)", f"  {bind}\n  return {call}")
    graph = load(tmp_path, text)
    weights, inputs = trial(graph, 0), routed()
    assert sorted(weights) == sorted(f"experts.{i}.{n}" for i in range(3) for n in WEIGHTS)
    wanted = reference.run(load(tmp_path, ROUTE), weights, inputs)["output"]
    np.testing.assert_array_equal(reference.run(graph, weights, inputs)["output"], wanted)


WEIGHTS = ("up.weight", "up.bias", "down.weight", "down.bias")


def test_bound_and_applied_twice_it_has_one_set_of_weights(tmp_path: Path) -> None:
    once = "  return route(x, chosen, weight, expert=Expert, count=3)\n"
    twice = """  experts = route(expert=Expert, count=3)
  y = experts(x, chosen, weight)
  return experts(y, chosen, weight)
"""
    text = ROUTE.replace(once, twice)
    graph = load(tmp_path, text)
    weights, inputs = trial(graph, 0), routed()
    assert len(weights) == 3 * len(WEIGHTS)
    single = load(tmp_path, ROUTE)
    first = reference.run(single, weights, inputs)["output"]
    second = reference.run(single, weights, {**inputs, "x": first})["output"]
    np.testing.assert_allclose(reference.run(graph, weights, inputs)["output"], second, rtol=0, atol=1e-6)


def test_weights_of_experts_begin_as_the_spec_says(tmp_path: Path) -> None:
    text = ROUTE.replace("  return route", '  initialize "experts.*.up" = constant(0.5)\n  return route')
    values = tfdsl.weights.initial(load(tmp_path, text), 0)
    assert all((values[f"experts.{i}.up.weight"] == 0.5).all() for i in range(3))
    assert values["experts.0.down.weight"].std() > 0
    assert (values["experts.0.down.weight"] != values["experts.1.down.weight"]).any()


MIXING = {
    "softmax(x, axis=0)": "softmax",
    "x - mean(x, axis=0)": "mean",
    "cumsum(x, axis=0)": "cumsum",
    "x + mean(concat(x, x, axis=0), axis=0)": "concat",
    "roll(x, shift=1, axis=0)": "roll",
    'x + rearrange(cast(positions(x, axis=0), to="float"), "n -> n 1")': "positions",
    "x + sum(swap(x) @ x, axis=0)": "matmul",
    'einsum("a b, c b -> a b", x, x)': "einsum",
    'x + sum(sum(rearrange(x, "n (a b) -> (n a) b", a=2)))': "rearrange",
    "softmax(swap(x)) |> swap": "softmax",
    "x * rows": "counts",
}


@pytest.mark.parametrize("expression", MIXING)
def test_an_expert_treats_rows_by_themselves(tmp_path: Path, expression: str) -> None:
    text = f"""block Expert(x: [rows, width]) -> [rows, width] {{
  h = linear(x, out=width) as up
  x = h
  return {expression}
}}
{ROUTE.removeprefix(EXPERT)}"""
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, text)
    (fault,) = caught.value.diagnostics
    assert fault.code == "T410"
    assert MIXING[expression] in fault.message


INDEPENDENT = (
    "softmax(x)",
    "x - mean(x, keep=true)",
    'rearrange(x, "n (a b) -> n b a", a=2) |> rearrange("n b a -> n (b a)")',
    'sum(einsum("n a, n b -> n a b", x, x), axis=1)',
    'rearrange(swap(rearrange(x, "n (a b) -> n a b", a=2)) @ rearrange(x, "n (a b) -> n a b", a=2), "n a b -> n (a b)")'
    " |> linear(out=8) as y",
    "concat(slice(x, axis=1, start=4), slice(x, axis=1, stop=4))",
    "gather(x, argmax(gather(table, positions(x, axis=1), axis=0)), axis=1)",
    'x * cast(positions(x, axis=1), to="float")',
    "where(x > 0, x, relu(x) + max(x, keep=true))",
)


@pytest.mark.parametrize("expression", INDEPENDENT)
def test_what_is_independent_is_let_through(tmp_path: Path, expression: str) -> None:
    """And it is: rows give the same alone as together, in the reference and unrolled."""
    text = f"""block Expert(x: [rows, width]) -> [rows, width] {{
  table = weight(shape=[width, 4])
  x = linear(x, out=width) as up
  return {expression}
}}
{ROUTE.removeprefix(EXPERT)}"""
    graph = load(tmp_path, text)
    weights, inputs = trial(graph, 0), routed()
    wanted = reference.run(graph, weights, inputs)["output"]
    np.testing.assert_allclose(reference.run(unroll(graph), weights, inputs)["output"], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("route(x, chosen, expert=Expert, count=3)", "T302"),
        ("route(x, chosen, weight, count=3)", "T302"),
        ("route(x, chosen, weight, expert=Expert, count=3, top=2)", "T302"),
        ("route(x, weight, weight, expert=Expert, count=3)", "T403"),
        ("route(x, chosen, select(weight, axis=2, index=0), expert=Expert, count=3)", "T401"),
        ("route(x, select(chosen, axis=1, index=0), weight, expert=Expert, count=3)", "T401"),
        ("route(x, chosen, weight, expert=3, count=3)", "T301"),
        ("route(x, chosen, weight, expert=Expert, count=0)", "T306"),
        ("route(x, chosen, weight, expert=Expert, count=1_000_000)", "T306"),
        ("route(x, chosen, weight, expert=gelu, count=3)", "T410"),
        ("route(x, chosen, weight, expert=split(parts=2), count=3)", "T301"),
    ],
)
def test_calls_that_mean_nothing(tmp_path: Path, call: str, code: str) -> None:
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, ROUTE.replace("route(x, chosen, weight, expert=Expert, count=3)", call))
    assert [each.code for each in caught.value.diagnostics] == [code]


# --- the standard library --------------------------------------------------------------------------------------------

LOSSES = """import load_balance, router_z from "std/moe.tfm"
model M(logits: [tokens, 4], chosen: int[tokens, 2]) -> balance: [], z: [] {
  return load_balance(softmax(logits), chosen), router_z(logits)
}
"""


def test_auxiliary_losses_are_those_of_the_papers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    switch = pytest.importorskip("transformers.models.switch_transformers.modeling_switch_transformers")
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    chosen = logits.topk(2).indices
    inputs = {"logits": logits.numpy(), "chosen": chosen.numpy()}
    found = reference.run(load(tmp_path, LOSSES), {}, inputs)
    assert found["balance"] == pytest.approx(mixtral.load_balancing_loss_func((logits,), 4, 2).item(), rel=1e-6)
    assert found["z"] == pytest.approx(switch.router_z_loss_func(logits[None]).item(), rel=1e-6)


def test_an_even_load_costs_least(tmp_path: Path) -> None:
    even = {"logits": np.zeros((8, 4)), "chosen": np.arange(16).reshape(8, 2) % 4}
    assert reference.run(load(tmp_path, LOSSES), {}, even)["balance"] == pytest.approx(2)


BLOCKS = """import MoE, Switch, SharedMoE from "std/moe.tfm"
import MLP, GatedMLP from "std/feed_forward.tfm"
model M(x: [batch, seq, 8]) -> [batch, seq, 8] {
  x = x + MoE(x, expert=GatedMLP(hidden=12), experts=4) as a
  x = x + MoE(x, expert=MLP(hidden=12), experts=3, top_k=1, normalize=false) as b
  x = x + Switch(x, expert=MLP(hidden=12), experts=3, capacity=2) as c
  return x + SharedMoE(
    x, expert=GatedMLP(hidden=6), shared=GatedMLP(hidden=12), experts=5, top_k=3, scale=2.5
  ) as d
}
"""


def test_blocks_agree_on_every_target(tmp_path: Path) -> None:
    (tmp_path / "spec.tfm").write_text(BLOCKS, "utf-8")
    verdict = tfdsl.load(tmp_path / "spec.tfm").verify()
    assert verdict.passed


def test_experts_drop_what_is_beyond_their_capacity(tmp_path: Path) -> None:
    """With one expert and a capacity of two, the first two positions of each sequence have a result."""
    text = BLOCKS.split("model M")[0] + (
        "model M(x: [batch, seq, 8]) -> [batch, seq, 8] {\n"
        "  return Switch(x, expert=MLP(hidden=12), experts=1, capacity=2) as mlp\n}\n"
    )
    graph = load(tmp_path, text)
    found = reference.run(graph, trial(graph, 0), {"x": routed()["x"]})["output"]
    assert (found[:, :2] != 0).all()
    assert (found[:, 2:] == 0).all()


# --- published models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "model", "total"),
    [
        ("mixtral.tfm", "Mixtral_8x7B", 46_702_792_704),
        ("switch.tfm", "Switch_Base_8", 619_339_008),
        ("switch.tfm", "Switch_Base_128", 7_415_217_408),
    ],
)
def test_published_totals(file: str, model: str, total: int) -> None:
    assert report(tfdsl.load(SPECS / file, model).graph).parameters == total


def published(model: Any, torch: Any) -> tuple[Any, Arrays]:
    """A model in float64 with every weight drawn anew, and those weights."""
    torch.manual_seed(7)
    model = model.double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = weight.dim() == 1 and name.endswith("weight")
            weight.copy_(torch.randn(weight.shape) * (0.1 if weight.dim() == 1 else 0.2) + norm)
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


def agree(graph: Graph, weights: Mapping[str, Any], inputs: Arrays, logits: Any, precision: float) -> None:
    """The reference and the emitted module against the published model."""
    from tfdsl.backends import torch as backend

    wanted = logits.detach().numpy()
    scale = np.abs(wanted).max()
    assert scale > 0.1, "the comparison would say nothing"
    np.testing.assert_allclose(reference.run(graph, weights, inputs)["logits"], wanted, rtol=0, atol=precision * scale)
    single = {path: np.asarray(value, np.float32) for path, value in weights.items()}
    found = backend.session(graph, single)(inputs)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * scale)


def test_mixtral_has_the_published_arithmetic() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        experts_implementation="eager",
    )
    model, theirs = published(transformers.MixtralForCausalLM(config), torch)
    weights = {}
    for name, value in theirs.items():
        name = name.removeprefix("model.")
        if name.endswith(("gate_up_proj", "down_proj")):  # the library holds all experts' weights in one tensor
            for expert, own in enumerate(value):
                start = name.rpartition(".")[0] + f".{expert}"
                if name.endswith("gate_up_proj"):
                    weights[f"{start}.gate_proj.weight"], weights[f"{start}.up_proj.weight"] = np.split(own, 2)
                else:
                    weights[f"{start}.down_proj.weight"] = own
        else:
            weights[name] = value
    sizes = {"vocab": 97, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 24}
    experts = {"ffn": "MoE(expert=GatedMLP(hidden=hidden), experts=4)"}
    spec = tfdsl.load(SPECS / "mixtral.tfm", "Mixtral_8x7B", settings=experts, **sizes)
    tokens = np.random.default_rng(5).integers(0, 97, (2, 40))
    agree(spec.graph, weights, {"tokens": tokens}, model(torch.tensor(tokens)).logits, 1e-6)


def switch_weights(theirs: Arrays) -> Arrays:
    weights = {"shared.weight": theirs["shared.weight"]}
    for stack, parts in {"encoder": ("attention", "ffn"), "decoder": ("attention", "cross", "ffn")}.items():
        position = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        weights[f"{stack}_positions.bias.weight"] = theirs[f"{stack}.{position}"]
        weights[f"{stack}_norm.weight"] = theirs[f"{stack}.final_layer_norm.weight"]
        for layer in range(2):
            for place, part in enumerate(parts):
                below, ours = f"{stack}.block.{layer}.layer.{place}.", f"{stack}.{layer}.{part}"
                weights[f"{ours}_norm.weight"] = theirs[f"{below}layer_norm.weight"]
                module = {"attention": "SelfAttention.", "cross": "EncDecAttention.", "ffn": "mlp."}[part]
                for name, value in theirs.items():
                    if name.startswith(below + module) and "relative" not in name:
                        short = name.removeprefix(below + module).replace("router.classifier", "gate")
                        weights[f"{ours}.{short.replace('expert_', '')}"] = value
    return weights


def test_switch_transformers_have_the_published_arithmetic() -> None:
    """Sequences in which experts are asked for by more positions than they take."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.SwitchTransformersConfig(
        vocab_size=97,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_sparse_encoder_layers=1,
        num_decoder_layers=2,
        num_sparse_decoder_layers=1,
        num_heads=4,
        num_experts=4,
        expert_capacity=5,
    )
    model, theirs = published(transformers.SwitchTransformersForConditionalGeneration(config), torch)
    generator = np.random.default_rng(5)
    inputs = {"inputs": generator.integers(0, 97, (2, 30)), "outputs": generator.integers(0, 97, (2, 25))}
    sizes = {"vocab": 97, "width": 32, "head": 8, "hidden": 48, "depth": 2, "heads": 4, "experts": 4, "capacity": 5}
    graph = tfdsl.load(SPECS / "switch.tfm", "SwitchTransformer", **sizes).graph
    named = {"input_ids": torch.tensor(inputs["inputs"]), "decoder_input_ids": torch.tensor(inputs["outputs"])}
    agree(graph, switch_weights(theirs), inputs, model(**named).logits, 1e-5)


# --- training --------------------------------------------------------------------------------------------------------

LEARNER = """import MoE from "std/moe.tfm"
import MLP from "std/feed_forward.tfm"
model Learner(x: [batch, 8]) -> [batch, 8] {
  param balance = 0.0
  return MoE(x, expert=MLP(hidden=16), experts=4, top_k=1, normalize=false, balance=balance) as mixture
}
"""


def shares(tmp_path: Path, balance: float) -> Any:
    """The share of positions that each expert has after training on a task that one expert could do."""
    torch = pytest.importorskip("torch")
    from tfdsl.backends import torch as backend

    torch.manual_seed(0)
    model = backend.make(load(tmp_path, LEARNER, balance=balance))
    with torch.no_grad():
        model.mixture.gate.weight[0] += 0.5  # at first nearly all go to one expert
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(600):
        x = torch.randn(256, 8) + 0.5
        loss = ((model(x) - x.flip(-1)) ** 2).mean() + sum(model.penalties.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.randn(4096, 8) + 0.5
    chosen = model.mixture.gate(x).argmax(dim=-1)
    return torch.bincount(chosen, minlength=4) / len(x), loss.item()


def test_training_with_the_balance_loss_leaves_no_expert_idle(tmp_path: Path) -> None:
    alone, _ = shares(tmp_path, 0.0)
    assert alone.min() < 0.125
    even, loss = shares(tmp_path, 0.1)
    assert even.min() >= 0.125  # half of a fourth
    assert loss < 1
