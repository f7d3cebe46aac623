"""BertForMaskedLM, generated from bert.tfm. It is yours: train it, change it, ship it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embeddings(nn.Module):
    """tokens int[batch, seq] -> [batch, seq, width]."""

    def __init__(self, vocab: int, context: int, kinds: int, width: int) -> None:
        super().__init__()
        self.segment = nn.Embedding(kinds, width)
        self.word = nn.Embedding(vocab, width)
        self.position = nn.Embedding(context, width)
        for layer in (self.segment, self.word, self.position):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, tokens: Tensor) -> Tensor:
        kind = self.segment.weight[0]
        x = self.position(torch.arange(tokens.shape[1], device=tokens.device))
        return self.word(tokens) + x + kind


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k = self.key(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        v = self.value(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.drop if self.training else 0.0)
        return F.dropout(self.output(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class MLP(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        for layer in (self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.down(F.gelu(self.up(x))), self.drop, self.training)


class BertLayer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, inner: int, drop: float, eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, drop)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden=inner, drop=drop)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(x)
        x = self.attention_norm(x + attended)
        thought = self.mlp(x)
        x = self.mlp_norm(x + thought)
        return x


class Bert(nn.Module):
    """tokens int[batch, seq] -> [batch, seq, width]."""

    def __init__(
        self,
        inner: int,
        vocab: int = 30522,
        context: int = 512,
        kinds: int = 2,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        drop: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.context = context
        self.drop = drop
        self.embeddings = Embeddings(vocab, context, kinds, width)
        self.embeddings_norm = nn.LayerNorm(width, eps=eps)
        self.layer = nn.ModuleList(BertLayer(width, heads, inner, drop, eps) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        seq = tokens.shape[1]
        if seq > self.context:
            raise ValueError("the sequence is longer than the position table")
        x = self.embeddings(tokens)
        x = F.dropout(self.embeddings_norm(x), self.drop, self.training)
        for layer in self.layer:
            x = layer(x)
        return x


class BertForMaskedLM(nn.Module):
    """tokens int[batch, seq] -> logits [batch, seq, vocab]."""

    def __init__(
        self,
        vocab: int = 30522,
        context: int = 512,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        inner: int | None = None,
        drop: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        inner = 4 * width if inner is None else inner
        self.bias = nn.Parameter(torch.empty(vocab))
        self.bert = Bert(
            inner, vocab, context, width=width, depth=depth, heads=heads, drop=drop, eps=eps
        )
        self.transform = nn.Linear(width, width)
        self.transform_norm = nn.LayerNorm(width, eps=eps)
        nn.init.zeros_(self.bias)
        nn.init.trunc_normal_(self.transform.weight, std=0.02, a=-0.04, b=0.04)
        nn.init.zeros_(self.transform.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.gelu(self.transform(self.bert(tokens)))
        x = self.transform_norm(x)
        return F.linear(x, self.bert.embeddings.word.weight) + self.bias
