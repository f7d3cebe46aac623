"""Llama3_8B, generated from llama.tfm. It is yours: train it, change it, ship it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of features by angles: their cosines and sines [..., seq, half]."""
    half = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def rope(x: Tensor, head: int, base: int = 10_000) -> Tensor:
    """x [batch, heads, seq, head] -> [batch, heads, seq, head]."""
    dims = head
    frequency = base ** (torch.arange(dims // 2, device=x.device).float() * (-2 / dims))
    angle = torch.einsum("s,f->sf", torch.arange(x.shape[2], device=x.device).float(), frequency)
    return rotate(x, angle.cos(), angle.sin())


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, kv_heads: int, theta: int) -> None:
        super().__init__()
        head = width // heads
        self.head = head
        self.theta = theta
        self.q_proj = nn.Linear(width, heads * head, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head, bias=False)
        self.o_proj = nn.Linear(heads * head, width, bias=False)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        k = self.k_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        v = self.v_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            rope(q, self.head, base=self.theta),
            rope(k, self.head, base=self.theta),
            v,
            is_causal=True,
            enable_gqa=True,
        )
        return self.o_proj(y.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        for layer in (self.gate_proj, self.up_proj, self.down_proj):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        up = self.up_proj(x)
        return self.down_proj(F.silu(gate) * up)


class LlamaLayer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, hidden: int, theta: int, eps: float
    ) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, eps=eps)
        self.self_attn = Attention(width, heads, kv_heads, theta)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=eps)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Llama3_8B(nn.Module):
    """tokens int[batch, seq] -> logits [batch, seq, vocab]."""

    def __init__(
        self,
        vocab: int = 128_256,
        width: int = 4096,
        depth: int = 32,
        heads: int = 32,
        kv_heads: int = 8,
        hidden: int = 14_336,
        theta: int = 500_000,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(
            LlamaLayer(width, heads, kv_heads, hidden, theta, eps) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=eps)
        self.lm_head = nn.Linear(width, vocab, bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.lm_head(x)
