"""T5, generated from t5.tfm. It is yours: train it, change it, ship it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Kept(nn.Module):
    """What is computed in the first call, for all calls until a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.values: Tensor | tuple[Tensor, ...] | None = None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    softcap: float | None = None,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
    sinks: Tensor | None = None,
    drop: float = 0.0,
) -> Tensor:
    """Attention with capped scores (Gemma 2) or a sink per head (Xiao et al., 2023).

    No fused kernel takes these.
    """
    batch, heads, seq, features = q.shape
    grouped = (batch, k.shape[1], -1)  # the heads that share keys are more queries of one head
    scores = q.reshape(*grouped, features) @ k.transpose(-1, -2)
    scores = scores.view(batch, heads, seq, -1) * (features**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat((scores, sinks[:, None, None].expand(*scores.shape[:-1], 1)), dim=-1)
    weights = scores.softmax(dim=-1)
    if sinks is not None:
        weights = weights[..., :-1]
    if allowed is not None:
        weights = weights.masked_fill(~allowed, 0.0)
    weights = F.dropout(weights, drop)
    return (weights.reshape(*grouped, k.shape[2]) @ v).view(batch, heads, seq, -1)


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


class RelativeBias(nn.Module):
    """shared [batch, source, width] -> [1, heads, q, k]."""

    def __init__(self, heads: int, spread: float, buckets: int = 32, distance: int = 128) -> None:
        super().__init__()
        sided = buckets // 2
        exact = sided // 2
        self.distance = distance
        self.sided = sided
        self.exact = exact
        self.bias = nn.Embedding(buckets, heads)
        nn.init.normal_(self.bias.weight, std=spread)

    def forward(self, shared: Tensor) -> Tensor:
        positions = torch.arange(shared.shape[1], device=shared.device)
        ahead = positions.unsqueeze(0) - positions.unsqueeze(1)
        away = ahead.abs()
        far = (away.clamp(min=1).float() / self.exact).log()
        far = far / math.log(self.distance / self.exact) * (self.sided - self.exact)
        bucket = (self.exact + far.long()).clamp(max=self.sided - 1)
        bucket = torch.where(away < self.exact, away, bucket)
        bucket = bucket + (ahead > 0).long() * self.sided
        bias = self.bias(bucket)
        return bias.permute(2, 0, 1).unsqueeze(0)


class Attention(nn.Module):
    """x [batch, q, width], bias [1, heads, q, k] -> [batch, q, width]."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = ParallelLinear(width, heads * head, bias=False)
        self.k = ParallelLinear(width, heads * head, bias=False)
        self.v = ParallelLinear(width, heads * head, bias=False)
        self.o = ParallelLinear(heads * head, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.k(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        value = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return self.o(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.wi = ParallelLinear(width, hidden, bias=False)
        self.wo = ParallelLinear(hidden, width, bias=False)
        nn.init.normal_(self.wi.weight, std=width**-0.5)
        nn.init.normal_(self.wo.weight, std=hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.relu(self.wi(x)))


class T5EncoderLayer(nn.Module):
    """m [batch, source, width], near [1, heads, source, source] -> [batch, source, width]."""

    def __init__(self, width: int, heads: int, head: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=eps)
        self.attention = Attention(width, heads, head)
        self.ffn_norm = nn.RMSNorm(width, eps=eps)
        self.ffn = FeedForward(width, hidden)

    def forward(self, m: Tensor, near: Tensor) -> Tensor:
        h = self.attention_norm(m)
        m = m + self.attention(h, near)
        m = m + self.ffn(self.ffn_norm(m))
        return m


class DecoderPositionsRelativeBias(nn.Module):
    """x int[batch, total], position_ids int[batch, target] -> [1, heads, q, k]."""

    def __init__(self, heads: int, spread: float, buckets: int = 32, distance: int = 128) -> None:
        super().__init__()
        sided = buckets
        exact = sided // 2
        self.distance = distance
        self.sided = sided
        self.exact = exact
        self.bias = nn.Embedding(32, heads)
        nn.init.normal_(self.bias.weight, std=spread)

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        ahead = x.unsqueeze(1) - position_ids.unsqueeze(2)
        away = (-ahead).clamp(min=0)
        far = (away.clamp(min=1).float() / self.exact).log()
        far = far / math.log(self.distance / self.exact) * (self.sided - self.exact)
        bucket = (self.exact + far.long()).clamp(max=self.sided - 1)
        bucket = torch.where(away < self.exact, away, bucket)
        bias = self.bias(bucket)
        return bias.permute(0, 3, 1, 2).unsqueeze(1)


class DecoderAttention(nn.Module):
    """x [batch, q, width], past [batch, 1, heads, target, total] -> [batch, q, width]."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = ParallelLinear(width, heads * head, bias=False)
        self.k = ParallelLinear(width, heads * head, bias=False)
        self.v = ParallelLinear(width, heads * head, bias=False)
        self.o = ParallelLinear(heads * head, width, bias=False)
        self.key = Cache(2)
        self.value = Cache(2)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)

    def forward(self, x: Tensor, past: Tensor, allowed: Tensor | None) -> Tensor:
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.k(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        value = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        values = self.value.append(value)
        keys = self.key.append(key)
        y = attention(query, keys, values, scale=1.0, bias=past.squeeze(1), allowed=allowed)
        return self.o(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """x [batch, q, width], memory [batch, k, width] -> [batch, q, width]."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = ParallelLinear(width, heads * head, bias=False)
        self.k = ParallelLinear(width, heads * head, bias=False)
        self.v = ParallelLinear(width, heads * head, bias=False)
        self.o = ParallelLinear(heads * head, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)
        self.kept = Kept()

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        if self.kept.values is None:
            key = self.k(memory).unflatten(2, (self.heads, -1)).transpose(1, 2)
            value = self.v(memory).unflatten(2, (self.heads, -1)).transpose(1, 2)
            self.kept.values = key, value
        key, value = self.kept.values
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.o(y.transpose(1, 2).flatten(2))


class T5DecoderLayer(nn.Module):
    """x [batch, target, width],
    past [batch, 1, heads, target, total],
    encoder_norm [batch, source, width]
    -> [batch, target, width].
    """

    def __init__(self, width: int, heads: int, head: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=eps)
        self.attention = DecoderAttention(width, heads, head)
        self.cross_norm = nn.RMSNorm(width, eps=eps)
        self.cross = CrossAttention(width, heads, head)
        self.ffn_norm = nn.RMSNorm(width, eps=eps)
        self.ffn = FeedForward(width, hidden)

    def forward(
        self, x: Tensor, past: Tensor, encoder_norm: Tensor, allowed: Tensor | None
    ) -> Tensor:
        h = self.attention_norm(x)
        x = x + self.attention(h, past, allowed)
        h = self.cross_norm(x)
        x = x + self.cross(h, encoder_norm)
        x = x + self.ffn(self.ffn_norm(x))
        return x


class T5(nn.Module):
    """inputs int[batch, source],
    outputs int[batch, target],
    attention_mask int[batch, total],
    position_ids int[batch, target]
    -> logits [batch, 1, vocab].
    """

    def __init__(
        self,
        vocab: int = 32_128,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        head: int = 64,
        hidden: int = 2048,
        buckets: int = 32,
        distance: int = 128,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.width = width
        self.shared = nn.Embedding(vocab, width)
        self.encoder_positions = RelativeBias(
            heads, spread=width**-0.5, buckets=buckets, distance=distance
        )
        self.encoder = nn.ModuleList(
            T5EncoderLayer(width, heads, head, hidden, eps) for _ in range(depth)
        )
        self.encoder_norm = nn.RMSNorm(width, eps=eps)
        self.decoder_positions = DecoderPositionsRelativeBias(
            heads, spread=width**-0.5, buckets=buckets, distance=distance
        )
        self.decoder = nn.ModuleList(
            T5DecoderLayer(width, heads, head, hidden, eps) for _ in range(depth)
        )
        self.decoder_norm = nn.RMSNorm(width, eps=eps)
        nn.init.normal_(self.shared.weight, std=1.0)
        self.kept = Kept()
        self.past = 0  # positions so far

    def reset(self) -> None:
        """Forget what came before: the next call begins anew, with a batch of any size."""
        self.past = 0
        for module in self.modules():
            if isinstance(module, (Cache, Kept)):
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
        inputs: Tensor,
        outputs: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        batch = inputs.shape[0]
        target = outputs.shape[1]
        if attention_mask is None:
            attention_mask = torch.ones(
                batch, self.past + target, dtype=torch.long, device=inputs.device
            )
        if position_ids is None:
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -target:]
        allowed = cached_mask(attention_mask.bool(), target, fused=False)
        if self.kept.values is None:
            shared = self.shared(inputs)
            near = self.encoder_positions(shared)
            m = shared
            for layer in self.encoder:
                m = layer(m, near)
            x = self.encoder_norm(m)
            self.kept.values = x
        x = self.kept.values
        y = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        decoder_positions = self.decoder_positions(y, position_ids)
        x_1 = self.shared(outputs)
        for layer in self.decoder:
            x_1 = layer(x_1, decoder_positions, x, allowed)
        x = self.decoder_norm(x_1[:, -1:]) * self.width**-0.5
        self.past += target
        return parallel_linear(x, self.shared.weight)
