"""The shipped specs compute what the published implementations compute: random weights, copied by hand, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends.reference import run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SPECS = Path(__file__).parent.parent / "specs"
Arrays = dict[str, Any]


def published(model: Any) -> tuple[Any, Arrays]:
    """A model of the library in float64 with every weight drawn anew, and those weights."""
    torch.manual_seed(7)
    model = model.double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = weight.dim() == 1 and name.endswith("weight")
            weight.copy_(torch.randn(weight.shape) * (0.1 if weight.dim() == 1 else 0.2) + norm)
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


EXACT, FLOAT32 = 1e-9, 1e-5  # some parts of the library are computed in float32, whatever the model is in


def check(found: Mapping[str, Any], precision: float = EXACT, /, **expected: Any) -> None:
    """Compare outputs by name."""
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        wanted = wanted.detach().numpy()
        assert found[name].shape == wanted.shape
        assert np.abs(wanted).max() > 0.1, "the comparison would say nothing"
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=precision * np.abs(wanted).max())


def ids(high: int, *shape: int) -> Any:
    return np.random.default_rng(5).integers(0, high, shape)


def test_gpt2_has_the_published_arithmetic() -> None:
    """Checkpoints of GPT-2 hold linear weights transposed; the paths are the same."""
    config = transformers.GPT2Config(vocab_size=97, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    model, theirs = published(transformers.GPT2LMHeadModel(config))
    names = [name.removeprefix("transformer.") for name in theirs if name != "lm_head.weight"]
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    weights = {
        name: theirs[f"transformer.{name}"].T if name.endswith(linear) else theirs[f"transformer.{name}"]
        for name in names
    }
    spec = tfdsl.load(SPECS / "gpt2.tfm", vocab=97, context=16, width=32, depth=2, heads=4)
    tokens = ids(97, 3, 11)
    check(run(spec.graph, weights, {"tokens": tokens}), logits=model(torch.tensor(tokens)).logits)


BERT_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
BERT_SIZES = {"vocab": 97, "context": 16, "width": 32, "depth": 2, "heads": 4, "inner": 48}


def bert_config(**rest: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=97,
        max_position_embeddings=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        **rest,
    )


def bert_weights(theirs: Arrays, prefix: str, *, pooler: bool) -> Arrays:
    """The trunk's weights under our paths."""
    weights = {}
    for ours, name in {"word": "word", "position": "position", "segment": "token_type"}.items():
        weights[f"embeddings.{ours}.weight"] = theirs[f"{prefix}embeddings.{name}_embeddings.weight"]
    for kind in ("weight", "bias"):
        weights[f"embeddings_norm.{kind}"] = theirs[f"{prefix}embeddings.LayerNorm.{kind}"]
        if pooler:
            weights[f"pooler.dense.{kind}"] = theirs[f"{prefix}pooler.dense.{kind}"]
        for layer in range(2):
            for ours, name in BERT_LAYER.items():
                weights[f"layer.{layer}.{ours}.{kind}"] = theirs[f"{prefix}encoder.layer.{layer}.{name}.{kind}"]
    return weights


def bert_inputs() -> tuple[Arrays, Arrays]:
    """Two texts, the second shorter, in two segments: under our names and under theirs."""
    tokens, segments = ids(97, 2, 9), (np.arange(9) > 4).astype(np.int64)[None].repeat(2, 0)
    keep = np.arange(9)[None] < np.array([[9], [6]])
    ours = {"tokens": tokens, "segments": segments, "keep": keep}
    names = {"input_ids": tokens, "token_type_ids": segments, "attention_mask": keep.astype(np.int64)}
    return ours, {name: torch.tensor(value) for name, value in names.items()}


def test_bert_has_the_published_arithmetic() -> None:
    model, theirs = published(transformers.BertModel(bert_config()))
    weights = bert_weights(theirs, "", pooler=True)
    inputs, named = bert_inputs()
    plain = tfdsl.load(SPECS / "bert.tfm", "Bert", **BERT_SIZES)
    result = model(named["input_ids"])
    check(
        run(plain.graph, weights, {"tokens": inputs["tokens"]}),
        hidden=result.last_hidden_state,
        pooled=result.pooler_output,
    )
    full = tfdsl.load(SPECS / "bert.tfm", "Bert", inputs=["segments", "keep"], **BERT_SIZES)
    result = model(**named)
    check(run(full.graph, weights, inputs), hidden=result.last_hidden_state, pooled=result.pooler_output)


def test_bert_for_masked_language_modelling_has_the_published_arithmetic() -> None:
    model, theirs = published(transformers.BertForMaskedLM(bert_config()))
    weights = {f"bert.{path}": value for path, value in bert_weights(theirs, "bert.", pooler=False).items()}
    head = "cls.predictions.transform."
    for kind in ("weight", "bias"):
        weights[f"transform.{kind}"] = theirs[f"{head}dense.{kind}"]
        weights[f"transform_norm.{kind}"] = theirs[f"{head}LayerNorm.{kind}"]
    weights["bias"] = theirs["cls.predictions.bias"]
    spec = tfdsl.load(SPECS / "bert.tfm", "BertForMaskedLM", inputs=["segments", "keep"], **BERT_SIZES)
    inputs, named = bert_inputs()
    check(run(spec.graph, weights, inputs), logits=model(**named).logits)


def test_bert_for_classification_has_the_published_arithmetic() -> None:
    model, theirs = published(transformers.BertForSequenceClassification(bert_config(num_labels=3)))
    weights = {f"bert.{path}": value for path, value in bert_weights(theirs, "bert.", pooler=True).items()}
    weights |= {name: theirs[name] for name in ("classifier.weight", "classifier.bias")}
    spec = tfdsl.load(
        SPECS / "bert.tfm", "BertForSequenceClassification", inputs=["segments", "keep"], classes=3, **BERT_SIZES
    )
    inputs, named = bert_inputs()
    check(run(spec.graph, weights, inputs), logits=model(**named).logits)


ROPES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "Llama": ({"rope_type": "default", "rope_theta": 10_000.0}, {}),
    "Llama3_8B": ({"rope_type": "default", "rope_theta": 500_000.0}, {"kv_heads": "2"}),
    "Llama3_405B": (
        {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"kv_heads": "2", "rotary": "rope_llama3(base=theta, context=64)"},
    ),
}


@pytest.mark.parametrize("name", ROPES)
def test_llama_has_the_published_arithmetic(name: str) -> None:
    """Paths are those of the checkpoints below `model.`; the three variants turn their heads in different ways."""
    rope, settings = ROPES[name]
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=int(settings.get("kv_heads", 4)),
        rms_norm_eps=1e-5,
        max_position_embeddings=256,
        rope_parameters=rope,
    )
    model, theirs = published(transformers.LlamaForCausalLM(config))
    weights = {name.removeprefix("model."): value for name, value in theirs.items()}
    sizes = {"vocab": 97, "width": 64, "depth": 2, "heads": 4, "hidden": 80}
    spec = tfdsl.load(SPECS / "llama.tfm", name, settings=settings, **sizes)
    tokens = ids(97, 2, 150)
    check(run(spec.graph, weights, {"tokens": tokens}), FLOAT32, logits=model(torch.tensor(tokens)).logits)


def t5_weights(theirs: Arrays) -> Arrays:
    weights = {"shared.weight": theirs["shared.weight"]}
    for stack, parts in {"encoder": ("attention", "ffn"), "decoder": ("attention", "cross", "ffn")}.items():
        position = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        weights[f"{stack}_positions.bias.weight"] = theirs[f"{stack}.{position}"]
        weights[f"{stack}_norm.weight"] = theirs[f"{stack}.final_layer_norm.weight"]
        for layer in range(2):
            for place, part in enumerate(parts):
                below, ours = f"{stack}.block.{layer}.layer.{place}.", f"{stack}.{layer}.{part}"
                weights[f"{ours}_norm.weight"] = theirs[f"{below}layer_norm.weight"]
                module = {"attention": "SelfAttention", "cross": "EncDecAttention", "ffn": "DenseReluDense"}[part]
                for name in ("wi", "wo") if part == "ffn" else ("q", "k", "v", "o"):
                    weights[f"{ours}.{name}.weight"] = theirs[f"{below}{module}.{name}.weight"]
    return weights


def test_t5_has_the_published_arithmetic() -> None:
    """Sequences long enough to reach the buckets that distances share, with and without padding in the source."""
    config = transformers.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model, theirs = published(transformers.T5ForConditionalGeneration(config))
    weights = t5_weights(theirs)
    sizes = {"vocab": 97, "width": 32, "head": 8, "hidden": 48, "depth": 2, "heads": 4}
    inputs = {"inputs": ids(97, 2, 150), "outputs": ids(97, 2, 40)}
    named = {"input_ids": torch.tensor(inputs["inputs"]), "decoder_input_ids": torch.tensor(inputs["outputs"])}
    plain = tfdsl.load(SPECS / "t5.tfm", **sizes)
    check(run(plain.graph, weights, inputs), FLOAT32, logits=model(**named).logits)
    keep = np.arange(150)[None] < np.array([[150], [99]])
    padded = tfdsl.load(SPECS / "t5.tfm", inputs=["keep"], **sizes)
    logits = model(**named, attention_mask=torch.tensor(keep.astype(np.int64))).logits
    check(run(padded.graph, weights, {**inputs, "keep": keep}), FLOAT32, logits=logits)


VIT_LAYER = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def test_vit_has_the_published_arithmetic() -> None:
    """The spec has one matrix for queries, keys and values, as the original's release for PyTorch has."""
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_labels=5,
        layer_norm_eps=1e-6,
    )
    model, theirs = published(transformers.ViTForImageClassification(config))
    weights = {
        "cls_token": theirs["vit.embeddings.cls_token"],
        "pos_embed": theirs["vit.embeddings.position_embeddings"],
    }
    for kind in ("weight", "bias"):
        weights[f"patch_embed.proj.{kind}"] = theirs[f"vit.embeddings.patch_embeddings.projection.{kind}"]
        weights[f"norm.{kind}"] = theirs[f"vit.layernorm.{kind}"]
        weights[f"head.{kind}"] = theirs[f"classifier.{kind}"]
        for layer in range(2):
            below, ours = f"vit.layers.{layer}.", f"blocks.{layer}."
            for part, name in VIT_LAYER.items():
                weights[f"{ours}{part}.{kind}"] = theirs[f"{below}{name}.{kind}"]
            parts = [theirs[f"{below}attention.{name}.{kind}"] for name in ("q_proj", "k_proj", "v_proj")]
            weights[f"{ours}attn.qkv.{kind}"] = np.concatenate(parts)
    spec = tfdsl.load(SPECS / "vit.tfm", size=32, patch=8, width=32, hidden=48, depth=2, heads=4, classes=5)
    image = np.random.default_rng(3).normal(size=(2, 3, 32, 32))
    check(run(spec.graph, weights, {"image": image}), logits=model(torch.tensor(image)).logits)
