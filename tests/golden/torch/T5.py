"""T5, generated from t5.tfm. It is yours: train it, change it, ship it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """queries [batch, q, width] -> [1, heads, q, k]."""

    def __init__(self, heads: int, spread: float, buckets: int = 32, distance: int = 128) -> None:
        super().__init__()
        sided = buckets // 2
        exact = sided // 2
        self.distance = distance
        self.sided = sided
        self.exact = exact
        self.bias = nn.Embedding(buckets, heads)
        nn.init.normal_(self.bias.weight, std=spread)

    def forward(self, queries: Tensor) -> Tensor:
        ahead = torch.arange(queries.shape[1], device=queries.device).unsqueeze(0)
        ahead = ahead - torch.arange(queries.shape[1], device=queries.device).unsqueeze(1)
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

    def __init__(self, width: int, heads: int, head: int, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.q = nn.Linear(width, heads * head, bias=False)
        self.k = nn.Linear(width, heads * head, bias=False)
        self.v = nn.Linear(width, heads * head, bias=False)
        self.o = nn.Linear(heads * head, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.k(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        value = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.drop if self.training else 0.0,
            scale=1.0,
        )
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class FeedForward(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.wi = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)
        nn.init.normal_(self.wi.weight, std=width**-0.5)
        nn.init.normal_(self.wo.weight, std=hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wo(F.dropout(F.relu(self.wi(x)), self.drop, self.training))
        return F.dropout(x, self.drop, self.training)


class T5EncoderLayer(nn.Module):
    """m [batch, source, width], near [1, heads, source, source] -> [batch, source, width]."""

    def __init__(
        self, width: int, heads: int, head: int, hidden: int, drop: float, eps: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=eps)
        self.attention = Attention(width, heads, head, drop)
        self.ffn_norm = nn.RMSNorm(width, eps=eps)
        self.ffn = FeedForward(width, hidden, drop)

    def forward(self, m: Tensor, near: Tensor) -> Tensor:
        h = self.attention_norm(m)
        m = m + self.attention(h, near)
        m = m + self.ffn(self.ffn_norm(m))
        return m


class DecoderPositionsRelativeBias(nn.Module):
    """queries [batch, q, width] -> [1, heads, q, k]."""

    def __init__(self, heads: int, spread: float, buckets: int = 32, distance: int = 128) -> None:
        super().__init__()
        sided = buckets
        exact = sided // 2
        self.distance = distance
        self.sided = sided
        self.exact = exact
        self.bias = nn.Embedding(buckets, heads)
        nn.init.normal_(self.bias.weight, std=spread)

    def forward(self, queries: Tensor) -> Tensor:
        ahead = torch.arange(queries.shape[1], device=queries.device).unsqueeze(0)
        ahead = ahead - torch.arange(queries.shape[1], device=queries.device).unsqueeze(1)
        away = (-ahead).clamp(min=0)
        far = (away.clamp(min=1).float() / self.exact).log()
        far = far / math.log(self.distance / self.exact) * (self.sided - self.exact)
        bucket = (self.exact + far.long()).clamp(max=self.sided - 1)
        bucket = torch.where(away < self.exact, away, bucket)
        bias = self.bias(bucket)
        return bias.permute(2, 0, 1).unsqueeze(0)


class DecoderAttention(nn.Module):
    """x [batch, q, width], bias [1, heads, q, k] -> [batch, q, width]."""

    def __init__(self, width: int, heads: int, head: int, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.q = nn.Linear(width, heads * head, bias=False)
        self.k = nn.Linear(width, heads * head, bias=False)
        self.v = nn.Linear(width, heads * head, bias=False)
        self.o = nn.Linear(heads * head, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.k(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        value = self.v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        queries = torch.arange(query.shape[2], device=query.device)[:, None]
        keys = torch.arange(key.shape[2], device=key.device)
        y = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.masked_fill(~(keys <= queries), float("-inf")),
            dropout_p=self.drop if self.training else 0.0,
            scale=1.0,
        )
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class CrossAttention(nn.Module):
    """x [batch, q, width], memory [batch, k, width] -> [batch, q, width]."""

    def __init__(self, width: int, heads: int, head: int, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.q = nn.Linear(width, heads * head, bias=False)
        self.k = nn.Linear(width, heads * head, bias=False)
        self.v = nn.Linear(width, heads * head, bias=False)
        self.o = nn.Linear(heads * head, width, bias=False)
        nn.init.normal_(self.q.weight, std=(width * head) ** -0.5)
        nn.init.normal_(self.k.weight, std=width**-0.5)
        nn.init.normal_(self.v.weight, std=width**-0.5)
        nn.init.normal_(self.o.weight, std=(heads * head) ** -0.5)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.k(memory).unflatten(2, (self.heads, -1)).transpose(1, 2)
        value = self.v(memory).unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.drop if self.training else 0.0, scale=1.0
        )
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class T5DecoderLayer(nn.Module):
    """x [batch, target, width],
    past [1, heads, target, target],
    m [batch, source, width]
    -> [batch, target, width].
    """

    def __init__(
        self, width: int, heads: int, head: int, hidden: int, drop: float, eps: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=eps)
        self.attention = DecoderAttention(width, heads, head, drop)
        self.cross_norm = nn.RMSNorm(width, eps=eps)
        self.cross = CrossAttention(width, heads, head, drop)
        self.ffn_norm = nn.RMSNorm(width, eps=eps)
        self.ffn = FeedForward(width, hidden, drop)

    def forward(self, x: Tensor, past: Tensor, m: Tensor) -> Tensor:
        h = self.attention_norm(x)
        x = x + self.attention(h, past)
        h = self.cross_norm(x)
        x = x + self.cross(h, m)
        x = x + self.ffn(self.ffn_norm(x))
        return x


class T5(nn.Module):
    """inputs int[batch, source], outputs int[batch, target] -> logits [batch, target, vocab]."""

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
        drop: float = 0.1,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.width = width
        self.drop = drop
        self.shared = nn.Embedding(vocab, width)
        self.encoder_positions = RelativeBias(
            heads, spread=width**-0.5, buckets=buckets, distance=distance
        )
        self.encoder = nn.ModuleList(
            T5EncoderLayer(width, heads, head, hidden, drop, eps) for _ in range(depth)
        )
        self.encoder_norm = nn.RMSNorm(width, eps=eps)
        self.decoder_positions = DecoderPositionsRelativeBias(
            heads, spread=width**-0.5, buckets=buckets, distance=distance
        )
        self.decoder = nn.ModuleList(
            T5DecoderLayer(width, heads, head, hidden, drop, eps) for _ in range(depth)
        )
        self.decoder_norm = nn.RMSNorm(width, eps=eps)
        nn.init.normal_(self.shared.weight, std=1.0)

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        m = F.dropout(self.shared(inputs), self.drop, self.training)
        near = self.encoder_positions(m)
        for layer in self.encoder:
            m = layer(m, near)
        m = F.dropout(self.encoder_norm(m), self.drop, self.training)
        x = F.dropout(self.shared(outputs), self.drop, self.training)
        past = self.decoder_positions(x)
        for layer in self.decoder:
            x = layer(x, past, m)
        x = F.dropout(self.decoder_norm(x), self.drop, self.training)
        return F.linear(x * self.width**-0.5, self.shared.weight)
