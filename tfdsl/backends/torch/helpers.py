"""Functions that emitted files bring along where they need them, as source."""

from __future__ import annotations

from tfdsl.backends.torch.state_helpers import STATE_HELPERS

HELPERS: dict[str, str] = {
    "checkpoint": "",  # an import
    "rotate": '''
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of features by angles: their cosines and sines [..., seq, half]."""
    half = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
''',
    "rotate_neighbours": '''
def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of features by angles: their cosines and sines [..., seq, half]."""
    turned = 2 * cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    even, odd, rest = x[..., 0:turned:2], x[..., 1:turned:2], x[..., turned:]
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((pairs.flatten(-2), rest), dim=-1)
''',
    "drop_path": '''
def drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero whole examples of a batch with probability p, in training (Huang et al., 2016)."""
    if not training or p == 0.0:
        return x
    keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= p
    return x * keep / (1 - p)
''',
    "blank_hidden": '''
def blank_hidden(y: Tensor, allowed: Tensor) -> Tensor:
    """Zero the result of queries that may see no key."""
    return y.masked_fill(~allowed.any(dim=-1, keepdim=True), 0.0)
''',
    "attention": '''
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
''',
    "random_blocks": '''
def random_blocks(queries: Tensor, keys: Tensor, count: int, size: int, seed: int) -> Tensor:
    """Which keys lie in the blocks that a hash gives each block of queries (cf. Zaheer et al., 2020)."""
    blocks = -(-keys.shape[-1] // size)
    block = queries // size % 46_337
    seen = (queries < 0) & (keys < 0)
    for place in range(count):
        mixed = (block * 31_607 + (seed * 40_503 + place * 12_289 + 1) % 46_337) % 46_337
        shift = (seed * 9973 + place * 28_657 + 2) % 46_337
        mixed = (mixed * mixed % 46_337 * 17_389 + shift) % 46_337
        seen = seen | (keys // size == mixed * mixed % 46_337 % blocks)
    return seen
''',
    "linear_attend": '''
def linear_attend(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None = None, chunk: int = 64
) -> Tensor:
    """The running sum of outer(k, v), read by q at each step.

    Within a chunk it is made of products, from chunk to chunk it is a state. q and k are
    [b, h, s, d], v is [b, h, s, e], decay [b, h, s] the logarithm of what a step keeps.
    """
    heads = max(q.shape[1], k.shape[1], v.shape[1])
    q, k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (q, k, v))
    decay = None if decay is None else decay.expand(q.shape[:3])
    wide = torch.promote_types(q.dtype, torch.float32)  # a long sum does not fit into half precision
    state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3], dtype=wide)
    parts = []
    for start in range(0, q.shape[2], chunk):
        q_, k_, v_ = (x[:, :, start : start + chunk] for x in (q, k, v))
        scores = (q_ @ k_.transpose(-1, -2)).tril()
        if decay is None:
            parts.append(scores @ v_ + (q_.to(wide) @ state).to(q.dtype))
            state = state + k_.transpose(-1, -2) @ v_
            continue
        steps = decay[:, :, start : start + chunk]
        between = steps[..., None].expand(*steps.shape, steps.shape[-1]).tril(-1)
        between = between.cumsum(dim=-2).exp().to(q.dtype)
        before = steps.cumsum(dim=-1).exp().to(q.dtype)[..., None]
        parts.append((scores * between) @ v_ + ((q_ * before).to(wide) @ state).to(q.dtype))
        state = state * before[:, :, -1:] + (k_ * between[:, :, -1, :, None]).transpose(-1, -2) @ v_
    return torch.cat(parts, dim=2)
''',
    "gated_linear_attend": '''
def gated_linear_attend(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, chunk: int = 16) -> Tensor:
    """The running sum of outer(k, v), of which each feature of k decays by itself, read by q.

    Within a chunk it is made of products, from chunk to chunk it is a state. q, k and decay, the
    logarithm of what a step keeps, are [b, h, s, d], v is [b, h, s, e].
    """
    heads = max(q.shape[1], k.shape[1], v.shape[1])
    q, k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (q, k, v))
    decay = decay.expand(q.shape)
    wide = torch.promote_types(q.dtype, torch.float32)  # a long sum does not fit into half precision
    state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3], dtype=wide)
    parts = []
    for start in range(0, q.shape[2], chunk):
        q_, k_, v_, steps = (x[:, :, start : start + chunk] for x in (q, k, v, decay))
        between = steps.transpose(-1, -2)[..., None].expand(*steps.mT.shape, steps.shape[2]).tril(-1)
        between = between.cumsum(dim=-2).exp().to(q.dtype)
        before = steps.cumsum(dim=-2).exp().to(q.dtype)
        scores = torch.einsum("bhid,bhjd,bhdij->bhij", q_, k_, between).tril()
        parts.append(scores @ v_ + ((q_ * before).to(wide) @ state).to(q.dtype))
        state = state * before[:, :, -1, :, None] + (k_.mT * between[:, :, :, -1]) @ v_
    return torch.cat(parts, dim=2)
''',
    "route": '''
def route(
    x: Tensor, chosen: Tensor, weight: Tensor, experts: nn.ModuleList | list, *rest: Tensor
) -> Tensor:
    """For each row of x, the sum over its chosen experts [rows, k] of weight times expert(row)."""
    total = None
    for number, expert in enumerate(experts):
        rows, slots = torch.where(chosen == number)
        part = expert(x[rows], *rest) * weight[rows, slots, None]
        total = part.new_zeros(x.shape[0], part.shape[-1]) if total is None else total
        total = total.index_add(0, rows, part)
    return total
''',
    "dequantize": '''
def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """Whole numbers times their scales: one a row, or one a group of the last axis."""
    if q.dim() == 2 and scale.shape[1] > 1:
        return (q.unflatten(1, (scale.shape[1], -1)) * scale.unsqueeze(-1)).flatten(1)
    return q * scale
''',
    **STATE_HELPERS,
}
