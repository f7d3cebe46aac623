"""Gradients: those of emitted modules are the published models', and those of std blocks are their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.language import syntax
from tfdsl.language.parser import parse, read
from tfdsl.weights import trial

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import test_transformers_parity as parity  # noqa: E402 (these need torch and transformers)
import test_zoo as zoo  # noqa: E402

from tfdsl.backends.torch import make  # noqa: E402

Arrays = dict[str, Any]

# --- published models ------------------------------------------------------------------------------------------------


def backward(model: Any, inputs: Mapping[str, Any], outputs: tuple[str, ...], keep: Any) -> None:
    """Gradients of a random sum of the outputs, those of padding left out."""
    given = {name: torch.as_tensor(value) for name, value in inputs.items()}
    results = model(**given)
    if isinstance(results, torch.Tensor):
        results = (results,)
    elif not isinstance(results, tuple):
        results = tuple(getattr(results, name) for name in outputs)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for result in results:
        weight = torch.randn(result.shape, generator=generator, dtype=torch.float64)
        if keep is not None and result.shape[:2] == keep.shape:
            weight = weight * torch.as_tensor(keep)[..., None]
        total = total + (result.double() * weight).sum()
    total.backward()


def gradients(model: Any) -> Arrays:
    """The gradients of what a model learns, by name; zero where there are none."""
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return {
        name: (weight.grad if weight.grad is not None else torch.zeros_like(weight)).numpy()
        for name, weight in learned.items()
    }


def compare(
    model: Any, theirs: Any, translated: Callable[[Arrays], Arrays], ours: Arrays, named: Arrays, **rest: Any
) -> None:
    """Ours, a graph, and theirs have one gradient for each weight; `translated` brings theirs under our paths."""
    outputs, keep = rest.get("outputs", ("logits",)), ours.get("keep")
    weights = translated({name: value.numpy() for name, value in theirs.state_dict().items()})
    module = make(model, {name: np.array(value) for name, value in weights.items()}).double().eval()
    module.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    for part in theirs.modules():
        if isinstance(part, torch.nn.Embedding):
            part.padding_idx = None  # whose row would have no gradient
    backward(module, ours, outputs, keep)
    backward(theirs, named, outputs, keep)
    found, wanted = gradients(module), translated(gradients(theirs))
    assert set(found) == set(wanted)
    highest = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():  # that of a key's bias is zero, but for what theirs rounds to float32
        scale = max(np.abs(gradient).max(), 0.01 * highest)
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-5 * scale, err_msg=name)
    assert sum(np.abs(gradient).max() > 1e-3 * highest for gradient in wanted.values()) > 0.8 * len(wanted)


def test_gradients_of_gpt2_are_the_published_ones() -> None:
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")

    def translated(theirs: Arrays) -> Arrays:
        names = {name: name.removeprefix("transformer.") for name in theirs if name != "lm_head.weight"}
        return {ours: theirs[name].T if ours.endswith(linear) else theirs[name] for name, ours in names.items()}

    config = transformers.GPT2Config(vocab_size=97, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    theirs, _ = parity.published(transformers.GPT2LMHeadModel(config))
    graph = tfdsl.load(parity.SPECS / "gpt2.tfm", vocab=97, context=16, width=32, depth=2, heads=4).graph
    tokens = parity.ids(97, 3, 11)
    compare(graph, theirs, translated, {"tokens": tokens}, {"input_ids": tokens})


def test_gradients_of_bert_are_the_published_ones() -> None:
    theirs, _ = parity.published(transformers.BertModel(parity.bert_config()))
    graph = tfdsl.load(parity.SPECS / "bert.tfm", "Bert", inputs=["segments", "keep"], **parity.BERT_SIZES).graph
    ours, named = parity.bert_inputs()
    outputs = ("last_hidden_state", "pooler_output")
    compare(graph, theirs, lambda them: parity.bert_weights(them, "", pooler=True), ours, named, outputs=outputs)


def test_gradients_of_t5_are_the_published_ones() -> None:
    """The token table takes part three times: in the encoder, in the decoder and as the output layer."""
    config = transformers.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    theirs, _ = parity.published(transformers.T5ForConditionalGeneration(config))
    sizes = {"vocab": 97, "width": 32, "head": 8, "hidden": 48, "depth": 2, "heads": 4}
    graph = tfdsl.load(parity.SPECS / "t5.tfm", inputs=["keep"], **sizes).graph
    ours, named = zoo.pair_inputs()
    compare(graph, theirs, parity.t5_weights, ours, named)


@pytest.mark.parametrize("family", zoo.FAMILIES, ids=str)
def test_gradients_of_a_family_are_the_published_ones(family: zoo.Family) -> None:
    ours, named = family.inputs()

    def translated(theirs: Arrays) -> Arrays:
        return family.change(zoo.renamed(theirs, family.rules))

    outputs = tuple(family.outputs.values())
    compare(zoo.loaded(family, ours), zoo.published(family), translated, ours, named, outputs=outputs)


# --- blocks of the standard library that are not compared with a formula in test_std.py ---------------------------------


def averaged(call: str) -> str:
    """x times the mean of a result [batch, a, b], to have it of the shape of x."""
    return f'x * rearrange(mean({call} |> tanh, axis=[1, 2]), "b -> b 1 1")'


HEADS = 'rearrange(x, "b s (h d) -> b h s d", h=2)'
SCORES = "linear(x, out=3) as gate |> softmax"
CASES = {
    "prelude.rope": f'rope({HEADS}) |> rearrange("b h s d -> b s (h d)")',
    "prelude.relative_bias": f"attend({HEADS}, {HEADS}, {HEADS}, bias=relative_bias(x, x, heads=2) as near)"
    ' |> rearrange("b h s d -> b s (h d)")',
    "moe.MoE": "MoE(x, expert=MLP(hidden=6), experts=3) as b",
    "moe.Switch": "Switch(x, expert=MLP(hidden=6), experts=3, capacity=2) as b",
    "moe.SharedMoE": "SharedMoE(x, expert=MLP(hidden=6), shared=MLP(hidden=5), experts=4, top_k=2) as b",
    "moe.load_balance": f'x * load_balance({SCORES}, cast(x > 0, to="int"))',
    "moe.router_z": "x * router_z(linear(x, out=3) as gate)",
    "resampling.overlap_add": averaged('overlap_add(rearrange(x, "b s (n k) -> b n s k", k=4), stride=2)'),
    "resampling.transposed_conv1d": averaged("transposed_conv1d(swap(x), out=3, kernel=5, stride=2, padding=1) as b"),
    "resampling.transposed_conv2d": averaged(
        'mean(transposed_conv2d(rearrange(x, "b s (c w) -> b c s w", c=2), out=3, kernel=3, stride=2) as b)'
    ),
    "resampling.resize": "x * resize(resize(x, length=5), length=8)",
}


def text_of(block: str) -> str:
    file, name = block.split(".")
    lines = ['import MLP from "std/feed_forward.tfm"']
    lines += [f'import {name} from "std/{file}.tfm"'] if file != "prelude" else []
    return "\n".join([*lines, "model M(x: [batch, seq, 8]) -> y: [batch, seq, 8] {", f"  return {CASES[block]}", "}"])


@pytest.mark.parametrize("block", CASES)
def test_block_has_its_gradients(block: str, tmp_path: Any) -> None:
    """Those of inputs and weights, against differences, in float64; penalties too."""
    path = tmp_path / "spec.tfm"
    path.write_text(text_of(block), "utf-8")
    module = make(tfdsl.load(path).graph).double().eval()
    weights = trial(tfdsl.load(path).graph, 1)
    module.load_state_dict({name: torch.tensor(value).double() for name, value in weights.items()})
    learned = dict(module.named_parameters())

    def forward(x: Any, *values: Any) -> Any:
        y = torch.func.functional_call(module, dict(zip(learned, values, strict=True)), (x,))
        return y, *getattr(module, "penalties", {}).values()

    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values = [value.detach().requires_grad_() for value in (x, *learned.values())]
    assert torch.autograd.gradcheck(forward, values, fast_mode=True)


def test_every_block_has_its_gradients_tested() -> None:
    """Here or in test_std.py."""
    import test_std

    known = {*CASES, *(case.block for case in test_std.CASES)}
    for file in test_std.FILES:
        for item in parse(read(file)).items:
            assert not isinstance(item, syntax.Block) or f"{file.stem}.{item.name.text}" in known
