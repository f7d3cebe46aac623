"""Llama3_8B, generated from llama.tfm. It is yours: train it, change it, ship it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of features by angles: their cosines and sines [..., seq, half]."""
    half = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Attention to keys that are kept; without `allowed`, to all up to each query's own position.

    A lone query takes the heads that share keys as so many queries: no key is copied.
    """
    if q.shape[2] == 1:
        shared = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
        y = F.scaled_dot_product_attention(shared, k, v, attn_mask=allowed, scale=scale)
        return y.reshape(q.shape[0], q.shape[1], 1, -1)
    causal, grouped = allowed is None, q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=allowed, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def cached_mask(
    keep: Tensor, seq: int, window: int | None = None, fused: bool = True
) -> Tensor | None:
    """Which positions of `keep` [batch, total] its last `seq` see: real ones, up to their own.

    With a window, only so many of the last. None where these are all that there are, or, for a
    fused kernel, where the queries are all that there is.
    """
    total = keep.shape[1]
    whole = seq == 1 or (fused and seq == total)
    if whole and (window is None or total <= window) and bool(keep.all()):
        return None
    keys = torch.arange(total, device=keep.device)
    queries = keys[total - seq :, None]
    allowed = keys <= queries
    if window is not None:
        allowed = allowed & (queries - keys < window)
    return allowed & keep[:, None, None]


def parallel_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, with a single row shared out to the cores of a CPU: PyTorch has one do it all."""
    parts = math.gcd(weight.shape[0], torch.get_num_threads())
    fits = x.numel() == x.shape[-1] and x.dtype == torch.float32 and x.device.type == "cpu"
    if parts == 1 or not fits:
        return F.linear(x, weight, bias)
    shares = weight.t().unflatten(1, (parts, -1)).transpose(0, 1)  # [parts, in, out / parts]
    y = torch.bmm(x.reshape(1, 1, -1).expand(parts, 1, -1), shares).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


class ParallelLinear(nn.Linear):
    """nn.Linear, fast for a single row."""

    def forward(self, x: Tensor) -> Tensor:
        return parallel_linear(x, self.weight, self.bias)


class Cache(nn.Module):
    """What has come along an axis, or the last positions of it, in a buffer that doubles when full.

    It begins with `fill` positions of zeros.
    """

    def __init__(self, axis: int, last: int | None = None, fill: int = 0) -> None:
        super().__init__()
        self.axis, self.last, self.fill = axis, last, fill
        self.reset()

    def reset(self) -> None:
        self.buffer: Tensor | None = None
        self.start, self.stop = 0, self.fill

    def append(self, x: Tensor) -> Tensor:
        """What was kept, followed by x, which is kept from now on."""
        if self.last is not None:
            self.start = max(self.start, self.stop - self.last)
        kept, new = self.stop - self.start, x.shape[self.axis]
        if self.buffer is None or self.stop + new > self.buffer.shape[self.axis]:
            shape = list(x.shape)
            shape[self.axis] = 2 * (kept + new)
            buffer = x.new_zeros(shape)
            if self.buffer is not None:
                whole = self.buffer.narrow(self.axis, self.start, kept)
                buffer.narrow(self.axis, 0, kept).copy_(whole)
            self.buffer, self.start, self.stop = buffer, 0, kept
        self.buffer.narrow(self.axis, self.stop, new).copy_(x)
        self.stop += new
        return self.buffer.narrow(self.axis, self.start, kept + new)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [batch, heads, seq, head],
    cos [batch, seq, 64],
    sin [batch, seq, 64]
    -> [batch, heads, seq, head].
    """
    return rotate(x, cos.unsqueeze(1), sin.unsqueeze(1))


class Attention(nn.Module):
    """x [batch, seq, width], cos [batch, seq, 64], sin [batch, seq, 64] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        head = width // heads
        self.head = head
        self.q_proj = ParallelLinear(width, heads * head, bias=False)
        self.k_proj = ParallelLinear(width, kv_heads * head, bias=False)
        self.v_proj = ParallelLinear(width, kv_heads * head, bias=False)
        self.o_proj = ParallelLinear(heads * head, width, bias=False)
        self.key = Cache(2)
        self.value = Cache(2)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, allowed: Tensor | None) -> Tensor:
        q = self.q_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        k = self.k_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        v = self.v_proj(x).unflatten(2, (-1, self.head)).transpose(1, 2)
        keys = self.key.append(rope(k, cos, sin))
        y = cached_attention(rope(q, cos, sin), keys, self.value.append(v), allowed)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = ParallelLinear(width, hidden, bias=False)
        self.up_proj = ParallelLinear(width, hidden, bias=False)
        self.down_proj = ParallelLinear(hidden, width, bias=False)
        for layer in (self.gate_proj, self.up_proj, self.down_proj):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        up = self.up_proj(x)
        return self.down_proj(F.silu(gate) * up)


class LlamaLayer(nn.Module):
    """x [batch, seq, width], cos [batch, seq, 64], sin [batch, seq, 64] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, eps=eps)
        self.self_attn = Attention(width, heads, kv_heads)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=eps)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, allowed)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Llama3_8B(nn.Module):
    """tokens int[batch, seq],
    attention_mask int[batch, total],
    position_ids int[batch, seq]
    -> logits [batch, 1, vocab].
    """

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
        self.width = width
        self.heads = heads
        self.theta = theta
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(
            LlamaLayer(width, heads, kv_heads, hidden, eps) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=eps)
        self.lm_head = ParallelLinear(width, vocab, bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.past = 0  # positions so far

    def reset(self) -> None:
        """Forget what came before: the next call begins anew, with a batch of any size."""
        self.past = 0
        for module in self.modules():
            if isinstance(module, Cache):
                module.reset()

    def arrange(self) -> None:
        """Store wide weights by columns: a CPU multiplies them with a single row faster so.

        To be called when weights have been loaded; what they are and how they are called stays.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.out_features > module.in_features:
                module.weight.data = module.weight.data.t().contiguous().t()

    @torch.no_grad()
    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        batch = tokens.shape[0]
        seq = tokens.shape[1]
        if attention_mask is None:
            attention_mask = torch.ones(
                batch, self.past + seq, dtype=torch.long, device=tokens.device
            )
        if position_ids is None:
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -seq:]
        allowed = cached_mask(attention_mask.bool(), seq)
        x = self.embed_tokens(tokens)
        frequency = torch.arange((self.width // self.heads) // 2, device=tokens.device)
        frequency = self.theta ** (frequency.float() * (-2 / (self.width // self.heads)))
        angle = torch.einsum("ab,c->abc", position_ids.float(), frequency)
        cosine = angle.cos()
        sine = angle.sin()
        for layer in self.layers:
            x = layer(x, cosine, sine, allowed)
        x = self.norm(x[:, -1:])
        self.past += seq
        return self.lm_head(x)
