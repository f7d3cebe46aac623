"""GPT2, generated from gpt2.tfm. It is yours: train it, change it, ship it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, spread: float, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        nn.init.normal_(self.c_attn.weight, std=0.02)
        nn.init.zeros_(self.c_attn.bias)
        nn.init.normal_(self.c_proj.weight, std=spread)
        nn.init.zeros_(self.c_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        k = k.unflatten(2, (self.heads, -1)).transpose(1, 2)
        v = v.unflatten(2, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.drop if self.training else 0.0
        )
        return F.dropout(self.c_proj(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class MLP(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int, spread: float, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        nn.init.normal_(self.c_fc.weight, std=0.02)
        nn.init.zeros_(self.c_fc.bias)
        nn.init.normal_(self.c_proj.weight, std=spread)
        nn.init.zeros_(self.c_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return F.dropout(x, self.drop, self.training)


class GPT2Layer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(
        self, width: int, depth: int, heads: int, hidden: int, drop: float, eps: float
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, spread=0.02 / math.sqrt(2 * depth), drop=drop)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden, spread=0.02 / math.sqrt(2 * depth), drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT2(nn.Module):
    """tokens int[batch, seq] -> logits [batch, seq, vocab]."""

    def __init__(
        self,
        vocab: int = 50257,
        context: int = 1024,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        drop: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.context = context
        self.drop = drop
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(
            GPT2Layer(width, depth, heads, hidden, drop, eps) for _ in range(depth)
        )
        self.ln_f = nn.LayerNorm(width, eps=eps)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        seq = tokens.shape[1]
        if seq > self.context:
            raise ValueError("the sequence is longer than the position table")
        x = self.wte(tokens) + self.wpe(torch.arange(seq, device=tokens.device))
        x = F.dropout(x, self.drop, self.training)
        for layer in self.h:
            x = layer(x)
        x = self.ln_f(x)
        return F.linear(x, self.wte.weight)
