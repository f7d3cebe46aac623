"""GPT2, generated from gpt2.tfm. It is yours: train it, change it, ship it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, spread: float) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = ParallelLinear(width, 3 * width)
        self.c_proj = ParallelLinear(width, width)
        self.key = Cache(2)
        self.value = Cache(2)
        nn.init.normal_(self.c_attn.weight, std=0.02)
        nn.init.zeros_(self.c_attn.bias)
        nn.init.normal_(self.c_proj.weight, std=spread)
        nn.init.zeros_(self.c_proj.bias)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        k = k.unflatten(2, (self.heads, -1)).transpose(1, 2)
        v = v.unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = cached_attention(q, self.key.append(k), self.value.append(v), allowed)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int, spread: float) -> None:
        super().__init__()
        self.c_fc = ParallelLinear(width, hidden)
        self.c_proj = ParallelLinear(hidden, width)
        nn.init.normal_(self.c_fc.weight, std=0.02)
        nn.init.zeros_(self.c_fc.bias)
        nn.init.normal_(self.c_proj.weight, std=spread)
        nn.init.zeros_(self.c_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class GPT2Layer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, spread=0.02 / math.sqrt(2 * depth))
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden, spread=0.02 / math.sqrt(2 * depth))

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), allowed)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT2(nn.Module):
    """tokens int[batch, seq],
    attention_mask int[batch, total],
    position_ids int[batch, seq]
    -> logits [batch, 1, vocab].
    """

    def __init__(
        self,
        vocab: int = 50257,
        context: int = 1024,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.context = context
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(GPT2Layer(width, depth, heads, hidden, eps) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width, eps=eps)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.01)
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
        total = attention_mask.shape[1]
        allowed = cached_mask(attention_mask.bool(), seq)
        if total > self.context:
            raise ValueError("the sequence is longer than the position table")
        x = self.wte(tokens) + self.wpe(position_ids)
        for layer in self.h:
            x = layer(x, allowed)
        x = self.ln_f(x[:, -1:])
        self.past += seq
        return parallel_linear(x, self.wte.weight)
