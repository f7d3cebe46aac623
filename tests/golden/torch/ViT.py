"""ViT, generated from vit.tfm. It is yours: train it, change it, ship it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Patches(nn.Module):
    """image [batch, channels, height, width]
    -> [batch, (height / patch) * (width / patch), out].
    """

    def __init__(self, channels: int, patch: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out, patch, stride=patch)
        nn.init.kaiming_normal_(self.proj.weight, nonlinearity="linear")
        nn.init.zeros_(self.proj.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1).flatten(1, 2)


class Attention(nn.Module):
    """x [batch, seq, width] -> [batch, seq, width]."""

    def __init__(self, width: int, heads: int, drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        for layer in (self.qkv, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.drop if self.training else 0.0)
        return F.dropout(self.proj(y.transpose(1, 2).flatten(2)), self.drop, self.training)


class MLP(nn.Module):
    """x [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(F.dropout(F.gelu(self.fc1(x)), self.drop, self.training))
        return F.dropout(x, self.drop, self.training)


class ViTBlock(nn.Module):
    """x [batch, 197, width] -> [batch, 197, width]."""

    def __init__(self, width: int, heads: int, hidden: int, drop: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, drop)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden, drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class ViT(nn.Module):
    """image [batch, 3, size, size] -> logits [batch, classes]."""

    def __init__(
        self,
        size: int = 224,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        classes: int = 1000,
        drop: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        patches = (size // patch) ** 2
        hidden = 4 * width if hidden is None else hidden
        self.drop = drop
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, patches + 1, width))
        self.patch_embed = Patches(channels=3, patch=patch, out=width)
        self.blocks = nn.ModuleList(ViTBlock(width, heads, hidden, drop, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.cls_token)
        nn.init.normal_(self.pos_embed, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        batch = image.shape[0]
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(batch, -1, -1), x), dim=1)
        x = F.dropout(x + self.pos_embed, self.drop, self.training)
        for layer in self.blocks:
            x = layer(x)
        x = self.norm(x)
        return self.head(x[:, 0])
