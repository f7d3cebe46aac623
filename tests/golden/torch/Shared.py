"""Shared, generated from spec.tfm. It is yours: train it, change it, ship it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class SharedInnerLayer(nn.Module):
    """x [batch, seq, width], y [batch, seq, width] -> [batch, seq, width], [batch, seq, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(
        self, x: Tensor, y: Tensor, layer: nn.Module, mlp: nn.Module
    ) -> tuple[Tensor, Tensor]:
        x = layer(x)
        y = mlp(y) + self.lin(y)
        return x, y


class SharedOuterLayer(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, turns: int) -> None:
        super().__init__()
        self.inp = nn.Linear(width, width)
        self.inner = nn.ModuleList(SharedInnerLayer(width) for _ in range(turns))
        nn.init.xavier_uniform_(self.inp.weight)
        nn.init.zeros_(self.inp.bias)

    def forward(self, x: Tensor, layer: nn.Module, mlp: nn.Module) -> Tensor:
        y = self.inp(x)
        for turn in self.inner:
            x, y = turn(x, y, layer, mlp)
        x = x + y
        return x


class Layer(nn.Module):
    """x [b, s, w] -> [b, s, w]."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.sinks = nn.Parameter(torch.empty(2))
        self.n1 = nn.LayerNorm(w, bias=False)
        self.q = nn.Linear(w, w)
        self.k = nn.Linear(w, w)
        self.v = nn.Linear(w, w)
        self.o = nn.Linear(w, w)
        nn.init.normal_(self.sinks, std=1.0)
        for layer in (self.q, self.k, self.v, self.o):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        both = self.n1(x)
        q = self.q(both).unflatten(2, (2, -1)).transpose(1, 2)
        k = self.k(both).unflatten(2, (2, -1)).transpose(1, 2)
        v = self.v(both).unflatten(2, (2, -1)).transpose(1, 2)
        queries = torch.arange(q.shape[2], device=q.device)[:, None]
        keys = torch.arange(k.shape[2], device=k.device)
        allowed = ((keys <= queries) & ((queries - keys).abs() < 3)) | ((queries < 1) | (keys < 1))
        a = attention(q, k, v, softcap=5.0, allowed=allowed, sinks=self.sinks)
        return x + self.o(a.transpose(1, 2).flatten(2))

    def forward_2(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [b, s, w], memory [b, m, w] -> [b, s, w]."""
        h = self.n1(x)
        q = self.q(h).unflatten(2, (2, -1)).transpose(1, 2)
        both = torch.cat((h, memory), dim=1)
        k = self.k(both).unflatten(2, (2, -1)).transpose(1, 2)
        v = self.v(both).unflatten(2, (2, -1)).transpose(1, 2)
        queries = torch.arange(q.shape[2], device=q.device)[:, None]
        keys = torch.arange(k.shape[2], device=k.device)
        allowed = ((keys <= queries) & ((queries - keys).abs() < 3)) | ((queries < 1) | (keys < 1))
        a = attention(q, k, v, softcap=5.0, allowed=allowed, sinks=self.sinks)
        return x + self.o(a.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """x [..., w] -> [..., w]."""

    def __init__(self, w: int) -> None:
        super().__init__()
        hidden = 2 * w
        self.fc = nn.Linear(w, hidden)
        self.proj = nn.Linear(hidden, w)
        for layer in (self.fc, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.silu(self.fc(x)))


class Shared(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int = 16, turns: int = 3) -> None:
        super().__init__()
        self.outer = nn.ModuleList(SharedOuterLayer(width, turns) for _ in range(2))
        self.layer = Layer(w=width)
        self.mlp = MLP(w=width)

    def forward(self, x: Tensor) -> Tensor:
        x_1 = x
        for layer in self.outer:
            x_1 = layer(x_1, self.layer, self.mlp)
        z = self.layer.forward_2(x_1, x)
        return z
