"""The shipped specs: their exact sizes, their published initial values, their one style, and that they scale down."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.check import check_file
from tfdsl.ir.graph import Graph, weights
from tfdsl.language.parser import read
from tfdsl.language.printer import format_source

SPECS = Path(__file__).parent.parent / "specs"
FILES = sorted(SPECS.glob("*.tfm"))

TOTALS = {
    "gpt2.tfm": {
        "GPT2": 124_439_808,
        "GPT2_Medium": 354_823_168,
        "GPT2_Large": 774_030_080,
        "GPT2_XL": 1_557_611_200,
    },
    "bert.tfm": {
        "Bert": 109_482_240,
        "Bert_Large": 335_141_888,
        "BertForMaskedLM": 109_514_298,
        "BertForSequenceClassification": 109_483_778,
    },
    "llama.tfm": {
        "Llama": 6_738_415_616,
        "Llama2_7B": 6_738_415_616,
        "Llama3_8B": 8_030_261_248,
        "Llama3_70B": 70_553_706_496,
        "Llama3_405B": 405_853_388_800,
    },
    "t5.tfm": {"T5": 60_506_624, "T5_Small": 60_506_624, "T5_Base": 222_903_552},
    "vit.tfm": {"ViT": 86_567_656, "ViT_B16": 86_567_656, "ViT_L16": 304_326_632},
}
MODELS = [(file, model) for file, models in TOTALS.items() for model in models]

# Settings under which a model of each file is small enough to run.
SMALL: dict[str, dict[str, Any]] = {
    "gpt2.tfm": {"vocab": 101, "context": 32, "width": 32, "depth": 2, "heads": 4},
    "bert.tfm": {"vocab": 101, "context": 32, "width": 32, "depth": 2, "heads": 4},
    "llama.tfm": {"vocab": 101, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48},
    "t5.tfm": {"vocab": 101, "width": 32, "depth": 2, "heads": 4, "head": 8, "hidden": 48},
    "vit.tfm": {"size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 4, "classes": 10},
}


def parameters(graph: Graph) -> int:
    sizes: dict[str, int] = {}
    for weight in weights(graph):
        sizes |= dict.fromkeys(weight.paths(), math.prod(int(dim) for dim in weight.type.dims))  # type: ignore[arg-type]
    return sum(sizes.values())


@pytest.mark.parametrize(("file", "model"), MODELS)
def test_totals_are_those_that_were_published(file: str, model: str) -> None:
    assert parameters(tfdsl.load(SPECS / file, model).graph) == TOTALS[file][model]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_without_fault_and_formatted(file: Path) -> None:
    assert check_file(file).faults == []
    assert check_file(file).unsettled == {}
    source = read(file)
    assert format_source(source) == source.text


def test_every_model_has_its_total_above() -> None:
    """Those of the other files have theirs in the tests of the zoo."""
    files = [file for file in FILES if file.name in TOTALS]
    assert {(file.name, model) for file in files for model in check_file(file).models} == set(MODELS)


@pytest.mark.parametrize(
    ("file", "model"), [("gpt2.tfm", "GPT2"), ("llama.tfm", "Llama"), ("t5.tfm", "T5"), ("vit.tfm", "ViT")]
)
def test_a_file_alone_names_its_first_model(file: str, model: str) -> None:
    assert tfdsl.load(SPECS / file).name == model


def test_a_file_of_several_models_asks_which() -> None:
    with pytest.raises(tfdsl.SpecError, match=r"bert\.tfm:Bert"):
        tfdsl.load(SPECS / "bert.tfm")


@pytest.mark.parametrize(("file", "model"), MODELS)
def test_models_scale_down(file: str, model: str) -> None:
    assert parameters(tfdsl.load(SPECS / file, model, **SMALL[file]).graph) < 200_000


def initial(file: str, model: str | None = None, **settings: Any) -> dict[str, Any]:
    from tfdsl.weights import initial as draw

    return draw(tfdsl.load(SPECS / file, model, **settings).graph, 0)


def spread(weight: Any) -> float:
    return float(np.std(weight))


def test_gpt2_begins_as_published() -> None:
    values = initial("gpt2.tfm", width=256, heads=4, vocab=500, context=256, depth=2)
    assert spread(values["wte.weight"]) == pytest.approx(0.02, rel=0.05)
    assert spread(values["wpe.weight"]) == pytest.approx(0.01, rel=0.05)
    assert spread(values["h.1.attn.c_attn.weight"]) == pytest.approx(0.02, rel=0.05)
    assert spread(values["h.1.mlp.c_fc.weight"]) == pytest.approx(0.02, rel=0.05)
    for block in ("attn", "mlp"):  # four sublayers add to the residual stream
        assert spread(values[f"h.0.{block}.c_proj.weight"]) == pytest.approx(0.01, rel=0.05)
    assert not values["h.0.attn.c_proj.bias"].any()
    assert (values["ln_f.weight"] == 1).all()


def test_bert_begins_as_published() -> None:
    """Normal, cut off at two deviations; its spread is then 0.88 of the deviation."""
    values = initial("bert.tfm", "BertForMaskedLM", width=256, heads=4, vocab=500, context=256, depth=1)
    names = [name for name in values if name.endswith(".weight") and "norm" not in name]
    assert len(names) == 3 + 6 + 1
    for name in names:
        assert np.abs(values[name]).max() <= 0.04
        assert spread(values[name]) == pytest.approx(0.0176, rel=0.08), name
    norms = [name for name in values if name.endswith("norm.weight")]
    assert len(norms) == 4
    assert all((values[name] == 1).all() for name in norms)


def test_llama_begins_as_published() -> None:
    values = initial("llama.tfm", width=256, heads=4, vocab=500, hidden=300, depth=1)
    for name, value in values.items():
        if "norm" not in name:
            assert spread(value) == pytest.approx(0.02, rel=0.05), name


def test_t5_begins_as_published() -> None:
    values = initial("t5.tfm", width=256, heads=4, head=64, vocab=500, hidden=1024, depth=1)
    wanted = {
        "shared.weight": 1,
        "encoder.0.attention.q.weight": (256 * 64) ** -0.5,
        "encoder.0.attention.k.weight": 256**-0.5,
        "decoder.0.cross.v.weight": 256**-0.5,
        "decoder.0.attention.o.weight": 256**-0.5,
        "encoder.0.ffn.wi.weight": 256**-0.5,
        "encoder.0.ffn.wo.weight": 1024**-0.5,
    }
    for name, deviation in wanted.items():
        assert spread(values[name]) == pytest.approx(deviation, rel=0.05), name
    assert spread(values["decoder_positions.bias.weight"]) == pytest.approx(256**-0.5, rel=0.25)


def test_vit_begins_as_published() -> None:
    values = initial("vit.tfm", size=64, width=256, heads=4, depth=1)
    assert not values["cls_token"].any()
    assert not values["head.weight"].any()
    assert spread(values["pos_embed"]) == pytest.approx(0.02, rel=0.1)
    assert spread(values["patch_embed.proj.weight"]) == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.05)
    assert spread(values["blocks.0.mlp.fc1.bias"]) == pytest.approx(1e-6, rel=0.2)
    bound = math.sqrt(6 / (256 + 1024))
    assert np.abs(values["blocks.0.mlp.fc1.weight"]).max() == pytest.approx(bound, rel=0.01)


def test_llama3_405b_turns_long_contexts_more_slowly() -> None:
    """The one variant with a rotary scaling of its own."""
    graph = tfdsl.load(SPECS / "llama.tfm", "Llama3_405B", **SMALL["llama.tfm"]).graph
    plain = tfdsl.load(SPECS / "llama.tfm", "Llama3_70B", **SMALL["llama.tfm"]).graph
    ops = [[node.op for region in each.regions() for node in region.nodes()] for each in (graph, plain)]
    assert "minimum" in ops[0]
    assert "minimum" not in ops[1]
