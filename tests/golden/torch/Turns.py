"""Turns, generated from spec.tfm. It is yours: train it, change it, ship it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero whole examples of a batch with probability p, in training (Huang et al., 2016)."""
    if not training or p == 0.0:
        return x
    keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= p
    return x * keep / (1 - p)


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.qkv = nn.Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (2, -1)).transpose(1, 2).chunk(3, dim=-1)
        x = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.drop if self.training else 0.0
        )
        return x.transpose(1, 2).flatten(2)


class TurnsLayer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, depth: int, drop: float, i: int) -> None:
        super().__init__()
        wide = width * (i % 2 + 1)
        self.depth = depth
        self.drop = drop
        self.i = i
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.attn = Attention(width, drop)
        self.up = nn.Linear(width, wide)
        self.down = nn.Linear(wide, width)
        for layer in (self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.attn(self.norm(x))
        x = x + drop_path(h, self.drop * self.i / self.depth, self.training)
        x = x + self.down(F.relu(self.up(x)))
        size = (x * x).mean(dim=-1).mean(dim=-1).mean(dim=-1)
        return x, size


class Turns(nn.Module):
    """tokens int[batch, seq] -> logits [batch, seq, 11], pooled [batch, width]."""

    def __init__(self, width: int = 8, depth: int = 4, drop: float = 0.2) -> None:
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.layers = nn.ModuleList(TurnsLayer(width, depth, drop, i) for i in range(depth))
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.table(tokens)
        size = 0.0
        for layer in self.layers:
            x, size_ = layer(x)
            size = size + size_
        self.penalties = {"size": size}
        return F.linear(x, self.table.weight), x.mean(dim=1)
