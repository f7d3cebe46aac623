"""The zoo: each family computes what its published implementation computes, and each size has its published total.

A new family is one `Family` below and its sizes in `SIZES`. Weights are random, and rules for names say which is which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_specs import FILES, parameters
from test_specs import TOTALS as OTHER_TOTALS

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.build import TARGETS, session
from tfdsl.check import check_file
from tfdsl.ir import masks

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SPECS = Path(__file__).parent.parent / "specs"
Arrays = dict[str, Any]
Rules = Mapping[str, str | None]

LENGTH = 25
EXACT, FLOAT32 = (
    1e-6,
    1e-5,
)  # the library has norms, rotary angles and some softmaxes in float32, whatever a model is in


def renamed(theirs: Arrays, rules: Rules) -> Arrays:
    """The weights under our paths: all rules change a name in turn; those that a rule of None finds are left out."""
    ours = {}
    for name, value in theirs.items():
        if any(to is None and re.search(pattern, name) for pattern, to in rules.items()):
            continue
        for pattern, to in rules.items():
            name = name if to is None else re.sub(pattern, to, name)
        assert name not in ours, f"two weights become {name}"
        ours[name] = value
    return ours


def decoder_inputs() -> tuple[Arrays, Arrays]:
    tokens = np.random.default_rng(5).integers(0, 97, (2, LENGTH))
    return {"tokens": tokens}, {"input_ids": tokens}


def encoder_inputs(pad: int = 0, segments: bool = False, globals: int = 0) -> tuple[Arrays, Arrays]:
    """Two texts, the second padded on the right."""
    keep = np.arange(LENGTH)[None] < np.array([[LENGTH], [LENGTH - 9]])
    tokens = np.where(keep, np.random.default_rng(5).integers(2, 97, keep.shape), pad)
    ours, named = {"tokens": tokens, "keep": keep}, {"input_ids": tokens, "attention_mask": keep.astype(np.int64)}
    if segments:
        ours["segments"] = named["token_type_ids"] = (np.arange(LENGTH) > 6).astype(np.int64)[None].repeat(2, 0)
    if globals:
        named["global_attention_mask"] = (np.arange(LENGTH) < globals).astype(np.int64)[None].repeat(2, 0)
    return ours, named


def sparse_inputs() -> tuple[Arrays, Arrays]:
    """With the mask of the spec, joined to that of padding, as a tensor that the library adds to the scores."""
    ours, named = encoder_inputs(segments=True)
    place = np.arange(LENGTH)
    near = np.abs(place[:, None] - place) <= 4
    seen = near | (place[:, None] < 2) | (place < 2)
    blocks = -(-LENGTH // 3)
    for query, number in np.ndindex(blocks, 2):
        key = masks.random_block(query, number, 1, blocks)
        seen[3 * query : 3 * query + 3, 3 * key : 3 * key + 3] = True
    assert 0.5 < seen.mean() < 0.9
    return ours, {**named, "attention_mask": np.where(seen & ours["keep"][:, None], 0.0, -1e30)[:, None]}


def pair_inputs() -> tuple[Arrays, Arrays]:
    """A source of two texts, the second padded on the right, and a target."""
    ours, named = encoder_inputs()
    target = np.random.default_rng(6).integers(2, 97, (2, 11))
    return (
        {"inputs": ours["tokens"], "keep": ours["keep"], "outputs": target},
        {**named, "decoder_input_ids": target},
    )


def image_inputs() -> tuple[Arrays, Arrays]:
    image = np.random.default_rng(3).normal(size=(2, 3, 32, 32))
    return {"image": image}, {"pixel_values": image}


def audio_inputs() -> tuple[Arrays, Arrays]:
    tokens, audio = decoder_inputs()[0]["tokens"], np.random.default_rng(3).normal(size=(2, 8, 40))
    return {"audio": audio, "tokens": tokens}, {"input_features": audio, "decoder_input_ids": tokens}


@dataclass(frozen=True)
class Family:
    """One spec and the model of the library that it is compared with, both at a small size."""

    file: str
    model: str
    theirs: str
    config: Mapping[str, Any]
    sizes: Mapping[str, Any]
    rules: Rules
    inputs: Callable[[], tuple[Arrays, Arrays]] = decoder_inputs
    outputs: Mapping[str, str] = field(default_factory=lambda: {"logits": "logits"})
    change: Callable[[Arrays], Arrays] = lambda weights: weights  # of layout, after the names
    precision: float = FLOAT32

    def __str__(self) -> str:
        return self.model


DECODER = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OURS = {"vocab": 97, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
BELOW_MODEL = {r"^model\.": ""}
TIED = {**BELOW_MODEL, "^lm_head": None}
HALF_ROPE = {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_type": "default"}
FACTORS = {"short_factor": [1.0, 1.1, 1.25, 1.5], "long_factor": [1.5, 3.0, 6.25, 9.0]}
LONG_ROPE = (
    "rope_long(base=theta, dims=turned, context={}, reach=128, short=[1.0, 1.1, 1.25, 1.5], long=[1.5, 3.0, 6.25, 9.0])"
)
ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

ENCODER = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
}
OUR_ENCODER = {"vocab": 97, "context": 48, "width": 32, "depth": 2, "heads": 4, "inner": 48}
# Names of BERT and of what came from it.
BERT_RULES: Rules = {
    r"embeddings\.LayerNorm": "embeddings_norm",
    r"word_embeddings": "word",
    r"position_embeddings": "position",
    r"^encoder\.|(?<=\.)encoder\.": "",
    r"attention\.self\.": "attention.",
    r"attention\.output\.LayerNorm": "attention_norm",
    r"attention\.output\.dense": "attention.output",
    r"intermediate\.dense": "mlp.up",
    r"(?<=\d\.)output\.dense": "mlp.down",
    r"(?<=\d\.)output\.LayerNorm": "mlp_norm",
}
ROBERTA_RULES: Rules = {
    **BERT_RULES,
    r"token_type_embeddings\.weight": "segment",
    r"lm_head\.layer_norm": "lm_head.norm",
    r"lm_head\.decoder": None,
}
BODY = {"hidden": "last_hidden_state", "pooled": "pooler_output"}


def joined_heads(weights: Arrays) -> Arrays:
    """Queries, keys and values of a vision transformer in one matrix."""
    parts = {name: weights.pop(name) for name in list(weights) if re.search(r"\.attn\.[qkv]_proj\.", name)}
    for name in parts:
        if ".q_proj." in name:
            each = [parts[name.replace(".q_proj.", f".{kind}_proj.")] for kind in "qkv"]
            weights[name.replace(".q_proj.", ".qkv.")] = np.concatenate(each)
    return weights


T5_RULES: Rules = {
    r"\.embed_tokens\.weight": None,
    r"(encoder|decoder)\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias": r"\1_positions.bias",
    r"(encoder|decoder)\.final_layer_norm": r"\1_norm",
    r"\.block\.(\d+)\.layer\.0\.layer_norm": r".\1.attention_norm",
    r"\.block\.(\d+)\.layer\.0\.SelfAttention": r".\1.attention",
    r"decoder\.block\.(\d+)\.layer\.1\.layer_norm": r"decoder.\1.cross_norm",
    r"\.block\.(\d+)\.layer\.1\.EncDecAttention": r".\1.cross",
    r"\.block\.(\d+)\.layer\.\d\.layer_norm": r".\1.ffn_norm",
    r"\.block\.(\d+)\.layer\.\d\.DenseReluDense": r".\1.ffn",
    r"^lm_head\.weight": "lm_head",
}
DEIT_RULES: Rules = {
    r"\.embeddings\.(\w+)_token$": r".\1_token",
    r"distillation_token": "dist_token",
    r"\.embeddings\.position_embeddings": ".pos_embed",
    r"\.embeddings\.patch_embeddings\.projection": ".patch_embed.proj",
    r"^deit\.(encoder\.)?layers?\.": "deit.blocks.",
    r"^deit\.layernorm": "deit.norm",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.o_proj": "attn.proj",
    r"\.attention\.": ".attn.",
    r"^(cls_)?classifier": "head",
    r"^distillation_classifier": "head_dist",
}
WHISPER_RULES: Rules = {
    r"proj_out": None,
    r"encoder\.embed_positions": None,  # sinusoids, computed by the spec
    r"^model\.": "",
    r"^decoder\.embed_positions": "positions.position",
    r"^decoder\.embed_tokens": "embed_tokens",
    r"^(encoder|decoder)\.layer_norm": r"\1_norm",
    r"^encoder\.conv": "conv",
    r"\.layers\.": ".",
    r"self_attn_layer_norm": "attention_norm",
    r"encoder_attn_layer_norm": "cross_norm",
    r"final_layer_norm": "mlp_norm",
    r"self_attn\.": "attention.",
    r"encoder_attn\.": "cross.",
    r"q_proj": "query",
    r"k_proj": "key",
    r"v_proj": "value",
    r"out_proj": "output",
    r"fc1": "mlp.up",
    r"fc2": "mlp.down",
}

FAMILIES = [
    Family(
        "mistral.tfm",
        "Mistral",
        "MistralForCausalLM",
        {**DECODER, "sliding_window": 8, "rms_norm_eps": 1e-5, "head_dim": 8},
        {**OURS, "window": 8},
        BELOW_MODEL,
    ),
    Family(
        "mistral.tfm",
        "Mistral_7B_v3",
        "MistralForCausalLM",
        {**DECODER, "sliding_window": None, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        {**OURS, "head": 16},
        BELOW_MODEL,
    ),
    Family(
        "qwen2.tfm",
        "Qwen2",
        "Qwen2ForCausalLM",
        {**DECODER, "rope_theta": 1e6},
        OURS,
        BELOW_MODEL,
    ),
    Family(
        "qwen2.tfm",
        "Qwen2_0_5B",
        "Qwen2ForCausalLM",
        {**DECODER, "rope_theta": 1e6, "tie_word_embeddings": True},
        OURS,
        TIED,
    ),
    Family(
        "qwen3.tfm",
        "Qwen3",
        "Qwen3ForCausalLM",
        {**DECODER, "rope_theta": 1e6, "head_dim": 16},
        {**OURS, "head": 16},
        BELOW_MODEL,
    ),
    Family(
        "llama3.tfm",
        "Llama3_1_8B",
        "LlamaForCausalLM",
        {**DECODER, "rms_norm_eps": 1e-5, "rope_parameters": ROPE_LLAMA3},
        {**OURS, "theta": 100, "context": 16, "factor": 4},
        BELOW_MODEL,
    ),
    Family(
        "llama3.tfm",
        "Llama3_2_1B",
        "LlamaForCausalLM",
        {
            **DECODER,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": {**ROPE_LLAMA3, "factor": 32.0},
        },
        {**OURS, "theta": 100, "context": 16},
        TIED,
    ),
    Family(
        "gemma2.tfm",
        "Gemma2",
        "Gemma2ForCausalLM",
        {**DECODER, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24},
        {**OURS, "head": 16, "window": 8, "query_scale": 24},
        TIED,
    ),
    Family(
        "phi3.tfm",
        "Phi3",
        "Phi3ForCausalLM",
        {**DECODER, "sliding_window": 8},
        {**OURS, "window": 8},
        BELOW_MODEL,
    ),
    Family(
        "phi3.tfm",
        "Phi3",
        "Phi3ForCausalLM",
        {**DECODER, "sliding_window": 8, "rope_parameters": HALF_ROPE},
        {**OURS, "window": 8, "turned": 4},
        BELOW_MODEL,
    ),
    *(
        Family(
            "phi3.tfm",
            "Phi3",
            "Phi3ForCausalLM",
            {
                **DECODER,
                "max_position_embeddings": 128,
                "original_max_position_embeddings": context,
                "rope_parameters": {"rope_theta": 1e2, "rope_type": "longrope", **FACTORS},
            },
            {**OURS, "mask": "causal", "theta": 100, "rotary": LONG_ROPE.format(context)},
            BELOW_MODEL,
        )
        for context in (16, 64)  # before and after the length of the comparison
    ),
    Family(
        "roberta.tfm",
        "Roberta",
        "RobertaModel",
        {**ENCODER, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
        OUR_ENCODER,
        ROBERTA_RULES,
        lambda: encoder_inputs(pad=1),
        BODY,
        precision=EXACT,
    ),
    Family(
        "roberta.tfm",
        "RobertaForMaskedLM",
        "RobertaForMaskedLM",
        {**ENCODER, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
        OUR_ENCODER,
        ROBERTA_RULES,
        lambda: encoder_inputs(pad=1),
        precision=EXACT,
    ),
    Family(
        "distilbert.tfm",
        "DistilBertForMaskedLM",
        "DistilBertForMaskedLM",
        {"vocab_size": 97, "max_position_embeddings": 48, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        OUR_ENCODER,
        {
            r"distilbert\.embeddings\.(\w+)_embeddings": r"distilbert.\1",
            r"embeddings\.LayerNorm": "embeddings_norm",
            r"transformer\.": "",
            r"q_lin": "query",
            r"k_lin": "key",
            r"v_lin": "value",
            r"out_lin": "output",
            r"sa_layer_norm": "attention_norm",
            r"output_layer_norm": "mlp_norm",
            r"ffn\.lin1": "mlp.up",
            r"ffn\.lin2": "mlp.down",
            r"vocab_transform": "head.dense",
            r"vocab_layer_norm": "head.norm",
            r"vocab_projector\.weight": None,
            r"vocab_projector\.bias": "head.bias",
        },
        encoder_inputs,
        precision=EXACT,
    ),
    *(
        Family(
            "albert.tfm",
            model,
            theirs,
            {**ENCODER, "embedding_size": 16, "num_hidden_layers": 3},
            {**OUR_ENCODER, "narrow": 16, "depth": 3},
            {
                r"embeddings\.LayerNorm": "embeddings_norm",
                r"(\w+)_embeddings": r"\1",
                r"token_type": "segment",
                r"encoder\.": "",
                r"embedding_hidden_mapping_in": "widen",
                r"albert_layer_groups\.0\.albert_layers\.0": "layer",
                r"attention\.dense": "attention.output",
                r"attention\.LayerNorm": "attention_norm",
                r"full_layer_layer_norm": "mlp_norm",
                r"ffn_output": "mlp.down",
                r"ffn\.": "mlp.up.",
                r"pooler\.": "pooler.dense.",
                r"predictions\.decoder": None,
                r"predictions\.LayerNorm": "head.norm",
                r"predictions\.": "head.",
            },
            lambda: encoder_inputs(segments=True),
            outputs,
            precision=EXACT,
        )
        for model, theirs, outputs in (
            ("Albert", "AlbertModel", BODY),
            ("AlbertForMaskedLM", "AlbertForMaskedLM", {"logits": "logits"}),
        )
    ),
    Family(
        "t5_v11.tfm",
        "T5_v11",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 97,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        {"vocab": 97, "width": 32, "head": 8, "hidden": 48, "depth": 2, "heads": 4, "buckets": 8, "distance": 16},
        T5_RULES,
        pair_inputs,
    ),
    *(
        Family(
            "deit.tfm",
            model,
            theirs,
            {
                "image_size": 32,
                "patch_size": 8,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "num_labels": 5,
                "layer_norm_eps": 1e-6,
            },
            {"size": 32, "patch": 8, "width": 32, "hidden": 48, "depth": 2, "heads": 4, "classes": 5},
            DEIT_RULES,
            image_inputs,
            outputs,
            joined_heads,
            EXACT,
        )
        for model, theirs, outputs in (
            (
                "DeiT_Distilled",
                "DeiTForImageClassificationWithTeacher",
                {"logits": "logits", "label": "cls_logits", "teacher": "distillation_logits"},
            ),
            ("DeiT", "DeiTForImageClassification", {"logits": "logits"}),
        )
    ),
    Family(
        "whisper.tfm",
        "Whisper",
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 97,
            "num_mel_bins": 8,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_source_positions": 20,
            "max_target_positions": 30,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
        },
        {"vocab": 97, "mels": 8, "context": 30, "width": 32, "depth": 2, "decoder_depth": 3, "heads": 4, "hidden": 48},
        WHISPER_RULES,
        audio_inputs,
    ),
    Family(
        "longformer.tfm",
        "Longformer",
        "LongformerModel",
        {**ENCODER, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "attention_window": 8},
        {**OUR_ENCODER, "reach": 4, "globals": 2},
        ROBERTA_RULES,
        lambda: encoder_inputs(pad=1, globals=2),
        BODY,
    ),
    Family(
        "bigbird.tfm",
        "BigBird",
        "BigBirdModel",
        {**ENCODER, "attention_type": "original_full", "layer_norm_eps": 1e-12},
        {**OUR_ENCODER, "reach": 4, "globals": 2, "random": 2, "size": 3},
        {**BERT_RULES, r"token_type_embeddings": "segment", r"^pooler\.": "pooler.dense."},
        sparse_inputs,
        BODY,
        precision=EXACT,
    ),
]


def made(name: str, config: Mapping[str, Any]) -> Any:
    """A model of the library. T5's output layer is its token table there until a checkpoint is read that has both."""
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**config))
    if config.get("tie_word_embeddings") is False and name.startswith("T5"):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def published(family: Family) -> Any:
    """The library's model in float64, with every weight drawn anew that is learned."""
    torch.manual_seed(7)
    model = made(family.theirs, family.config).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                norm = weight.dim() == 1 and name.endswith("weight")
                weight.copy_(torch.randn(weight.shape) * (0.1 if weight.dim() == 1 else 0.2) + norm)
    return model


def loaded(family: Family, inputs: Arrays) -> Any:
    """Our model at the same size, with the optional inputs that the comparison gives."""
    settings = {name: value for name, value in family.sizes.items() if isinstance(value, str)}
    sizes = {name: value for name, value in family.sizes.items() if name not in settings}
    optional = [name for name in ("segments", "keep") if name in inputs]
    return tfdsl.load(SPECS / family.file, family.model, inputs=optional, settings=settings, **sizes).graph


def check(found: Mapping[str, Any], wanted: Arrays, precision: float, keep: Any) -> None:
    """Compare outputs by name, at the positions of real tokens."""
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert np.abs(value).max() > 0.1, "the comparison would say nothing"
        real = ... if keep is None or value.shape[:2] != keep.shape else keep
        np.testing.assert_allclose(found[name][real], value[real], rtol=0, atol=precision * np.abs(value).max())


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_family_has_the_published_arithmetic(family: Family, tmp_path: Path) -> None:
    compare_family(family, tmp_path)


def compare_family(family: Family, tmp_path: Path) -> None:
    """Our model with the library's weights: in float64 by the reference, and in float32 on every target."""
    ours, named = family.inputs()
    model = published(family)
    with torch.no_grad():
        result = model(**{name: torch.tensor(value) for name, value in named.items()})
    wanted = {name: getattr(result, theirs).numpy() for name, theirs in family.outputs.items()}
    weights = renamed({name: value.numpy() for name, value in model.state_dict().items()}, family.rules)
    weights = family.change(weights)
    graph, keep = loaded(family, ours), ours.get("keep")
    check(run(graph, weights, ours), wanted, family.precision, keep)
    single = {name: value.astype(np.float32) for name, value in weights.items()}
    for target in TARGETS:
        if target == "torch" or find_spec({"onnx": "onnxruntime"}.get(target, target)):
            check(session(graph, target, single, tmp_path / target)(ours), wanted, 1e-4, keep)


LLAMA3 = {"vocab_size": 128_256, "num_key_value_heads": 8}
QWEN2 = {"vocab_size": 151_936, "num_key_value_heads": 2, "tie_word_embeddings": True}
QWEN3 = {"num_key_value_heads": 8, "head_dim": 128}
SWITCH = {"d_ff": 3072, "num_decoder_layers": 12, "num_sparse_decoder_layers": 6, "num_sparse_encoder_layers": 6}
T5 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 64}


def wide(width: int, depth: int, heads: int, hidden: int, **rest: Any) -> dict[str, Any]:
    """The sizes of a model under the library's usual names."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (width, depth, heads, hidden), strict=True)) | rest


def t5(width: int, depth: int, heads: int, hidden: int) -> dict[str, Any]:
    return {**T5, "d_model": width, "num_layers": depth, "num_heads": heads, "d_ff": hidden}


def whisper(width: int, depth: int, heads: int, decoder: int = 0, **rest: Any) -> dict[str, Any]:
    sizes = {"d_model": width, "encoder_layers": depth, "decoder_layers": decoder or depth}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_attention_heads": heads, f"{side}_ffn_dim": 4 * width}
    return {"vocab_size": 51_865, **sizes, **rest}


def roberta(*sizes: int, **rest: Any) -> dict[str, Any]:
    return wide(*sizes, vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1) | rest


def image(width: int, heads: int) -> dict[str, Any]:
    return wide(width, 12, heads, 4 * width, num_labels=1000)


# For each model its total, and the library's class and configuration that has as many.
Size = tuple[int, str, Mapping[str, Any]]
SIZES: dict[str, dict[str, Size]] = {
    "mistral.tfm": {
        "Mistral": (7_241_732_096, "MistralForCausalLM", {}),
        "Mistral_7B": (7_241_732_096, "MistralForCausalLM", {}),
        "Mistral_7B_v3": (7_248_023_552, "MistralForCausalLM", {"vocab_size": 32_768}),
    },
    "mixtral.tfm": {
        "Mixtral_8x7B": (46_702_792_704, "MixtralForCausalLM", {}),
        "Mixtral_8x22B": (140_620_634_112, "MixtralForCausalLM", wide(6144, 56, 48, 16_384)),
    },
    "switch.tfm": {
        name: (total, "SwitchTransformersForConditionalGeneration", {"num_experts": experts, **SWITCH})
        for name, total, experts in (
            ("SwitchTransformer", 619_339_008, 8),
            ("Switch_Base_8", 619_339_008, 8),
            ("Switch_Base_128", 7_415_217_408, 128),
        )
    },
    "qwen2.tfm": {
        name: (total, "Qwen2ForCausalLM", config)
        for name, total, config in (
            ("Qwen2", 7_615_616_512, wide(3584, 28, 28, 18_944, vocab_size=152_064, num_key_value_heads=4)),
            ("Qwen2_0_5B", 494_032_768, wide(896, 24, 14, 4864, **QWEN2)),
            ("Qwen2_1_5B", 1_543_714_304, wide(1536, 28, 12, 8960, **QWEN2)),
            ("Qwen2_7B", 7_615_616_512, wide(3584, 28, 28, 18_944, vocab_size=152_064, num_key_value_heads=4)),
            ("Qwen2_72B", 72_706_203_648, wide(8192, 80, 64, 29_568, vocab_size=152_064, num_key_value_heads=8)),
        )
    },
    "qwen3.tfm": {
        name: (total, "Qwen3ForCausalLM", {"vocab_size": 151_936, **QWEN3, **config})
        for name, total, config in (
            ("Qwen3", 8_190_735_360, wide(4096, 36, 32, 12_288)),
            ("Qwen3_0_6B", 596_049_920, wide(1024, 28, 16, 3072, tie_word_embeddings=True)),
            ("Qwen3_1_7B", 1_720_574_976, wide(2048, 28, 16, 6144, tie_word_embeddings=True)),
            ("Qwen3_4B", 4_022_468_096, wide(2560, 36, 32, 9728, tie_word_embeddings=True)),
            ("Qwen3_8B", 8_190_735_360, wide(4096, 36, 32, 12_288)),
            ("Qwen3_14B", 14_768_307_200, wide(5120, 40, 40, 17_408)),
            ("Qwen3_32B", 32_762_123_264, wide(5120, 64, 64, 25_600)),
        )
    },
    "llama3.tfm": {
        name: (total, "LlamaForCausalLM", {**LLAMA3, **config})
        for name, total, config in (
            ("Llama3", 8_030_261_248, wide(4096, 32, 32, 14_336)),
            ("Llama3_1_8B", 8_030_261_248, wide(4096, 32, 32, 14_336)),
            ("Llama3_1_70B", 70_553_706_496, wide(8192, 80, 64, 28_672)),
            ("Llama3_1_405B", 405_853_388_800, wide(16_384, 126, 128, 53_248)),
            ("Llama3_2_1B", 1_235_814_400, wide(2048, 16, 32, 8192, tie_word_embeddings=True)),
            ("Llama3_2_3B", 3_212_749_824, wide(3072, 28, 24, 8192, tie_word_embeddings=True)),
        )
    },
    "gemma2.tfm": {
        name: (total, "Gemma2ForCausalLM", config)
        for name, total, config in (
            ("Gemma2", 2_614_341_888, {}),
            ("Gemma2_2B", 2_614_341_888, {}),
            ("Gemma2_9B", 9_241_705_984, wide(3584, 42, 16, 14_336, num_key_value_heads=8, head_dim=256)),
            ("Gemma2_27B", 27_227_128_320, wide(4608, 46, 32, 36_864, num_key_value_heads=16, head_dim=128)),
        )
    },
    "phi3.tfm": {name: (3_821_079_552, "Phi3ForCausalLM", {}) for name in ("Phi3", "Phi3_Mini", "Phi3_Mini_128k")},
    "roberta.tfm": {
        "Roberta": (124_645_632, "RobertaModel", roberta(768, 12, 12, 3072)),
        "Roberta_Large": (355_359_744, "RobertaModel", roberta(1024, 24, 16, 4096)),
        "RobertaForMaskedLM": (124_697_433, "RobertaForMaskedLM", roberta(768, 12, 12, 3072)),
        "RobertaForMaskedLM_Large": (355_412_057, "RobertaForMaskedLM", roberta(1024, 24, 16, 4096)),
    },
    "distilbert.tfm": {
        "DistilBert": (66_362_880, "DistilBertModel", {}),
        "DistilBertForMaskedLM": (66_985_530, "DistilBertForMaskedLM", {}),
    },
    "albert.tfm": {
        "Albert": (11_683_584, "AlbertModel", wide(768, 12, 12, 3072)),
        "Albert_XXLarge": (222_595_584, "AlbertModel", {}),
        "AlbertForMaskedLM": (11_221_680, "AlbertForMaskedLM", wide(768, 12, 12, 3072)),
    },
    "t5_v11.tfm": {
        name: (total, "T5ForConditionalGeneration", config)
        for name, total, config in (
            ("T5_v11", 76_961_152, t5(512, 8, 6, 1024)),
            ("T5_v11_Small", 76_961_152, t5(512, 8, 6, 1024)),
            ("T5_v11_Base", 247_577_856, t5(768, 12, 12, 2048)),
            ("T5_v11_Large", 783_150_080, t5(1024, 24, 16, 2816)),
            ("T5_v11_XL", 2_849_757_184, t5(2048, 24, 32, 5120)),
            ("T5_v11_XXL", 11_135_332_352, t5(4096, 24, 64, 10_240)),
        )
    },
    "deit.tfm": {
        "DeiT_Tiny": (5_717_416, "ViTForImageClassification", image(192, 3)),
        "DeiT_Small": (22_050_664, "ViTForImageClassification", image(384, 6)),
        "DeiT_Base": (86_567_656, "ViTForImageClassification", image(768, 12)),
        "DeiT": (86_569_192, "DeiTForImageClassification", image(768, 12)),
        "DeiT_Distilled": (87_338_192, "DeiTForImageClassificationWithTeacher", image(768, 12)),
        "DeiT_Tiny_Distilled": (5_910_800, "DeiTForImageClassificationWithTeacher", image(192, 3)),
        "DeiT_Small_Distilled": (22_436_432, "DeiTForImageClassificationWithTeacher", image(384, 6)),
        "DeiT_Base_Distilled": (87_338_192, "DeiTForImageClassificationWithTeacher", image(768, 12)),
    },
    # Those of the library, less the sinusoids, which its checkpoints store: 1500 times the width.
    "whisper.tfm": {
        name: (total, "WhisperForConditionalGeneration", config)
        for name, total, config in (
            ("Whisper", 37_760_640 - 1500 * 384, whisper(384, 4, 6)),
            ("Whisper_Tiny", 37_760_640 - 1500 * 384, whisper(384, 4, 6)),
            ("Whisper_Base", 72_593_920 - 1500 * 512, whisper(512, 6, 8)),
            ("Whisper_Small", 241_734_912 - 1500 * 768, whisper(768, 12, 12)),
            ("Whisper_Medium", 763_857_920 - 1500 * 1024, whisper(1024, 24, 16)),
            ("Whisper_Large", 1_543_304_960 - 1500 * 1280, whisper(1280, 32, 20)),
            (
                "Whisper_Large_v3",
                1_543_490_560 - 1500 * 1280,
                whisper(1280, 32, 20, vocab_size=51_866, num_mel_bins=128),
            ),
            (
                "Whisper_Large_v3_Turbo",
                808_878_080 - 1500 * 1280,
                whisper(1280, 32, 20, 4, vocab_size=51_866, num_mel_bins=128),
            ),
        )
    },
    "longformer.tfm": {
        "Longformer": (148_659_456, "LongformerModel", roberta(768, 12, 12, 3072, max_position_embeddings=4098)),
        "Longformer_Large": (434_600_960, "LongformerModel", roberta(1024, 24, 16, 4096, max_position_embeddings=4098)),
    },
    "bigbird.tfm": {"BigBird": (127_468_800, "BigBirdModel", {})},
    # GPT-2's, less its 1024 positions.
    "linear_transformer.tfm": {
        "LinearTransformer": (124_439_808 - 1024 * 768, "GPT2LMHeadModel", {"n_positions": 0}),
    },
}
TOTALS = [(file, model) for file, models in SIZES.items() for model in models]


@pytest.mark.parametrize(("file", "model"), TOTALS)
def test_total_is_the_published_one(file: str, model: str) -> None:
    """To the unit, and as many as the library's model has at the published configuration (made without memory)."""
    total, name, config = SIZES[file][model]
    assert parameters(tfdsl.load(SPECS / file, model).graph) == total
    with torch.device("meta"):
        theirs = made(name, config)
    assert sum(weight.numel() for weight in theirs.parameters() if weight.requires_grad) == total


def test_every_model_of_the_zoo_has_a_total() -> None:
    files = [file for file in FILES if file.name not in OTHER_TOTALS]
    shipped = {(file.name, model) for file in files for model in check_file(file).models}
    assert shipped - {("gpt2_bytes.tfm", "GPT2_Bytes")} == set(TOTALS)


def test_every_family_is_compared() -> None:
    """Mixtures in their own tests; what the library lacks by its formula, in those of the standard library."""
    elsewhere = {"mixtral.tfm", "switch.tfm", "linear_transformer.tfm"}
    assert {family.file for family in FAMILIES} == set(SIZES) - elsewhere
