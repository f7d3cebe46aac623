"""What emitted decoders bring along: the states, attention to what they hold, and the mask that goes with it, as source."""

from __future__ import annotations

# The class that holds the state of each op that has one.
STATE_CLASSES = {"append": "Cache", "running_attend": "RunningAttention", "running_sum": "RunningSum"}

STATE_HELPERS: dict[str, str] = {
    "Cache": '''
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
''',
    "RunningAttention": '''
class RunningAttention(nn.Module):
    """The running sum of outer(k, v), read by q at each step, from call to call.

    Within a chunk it is made of products, from chunk to chunk it is a state. q and k are
    [b, h, s, d], v is [b, h, s, e], decay [b, h, s] the logarithm of what a step keeps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.state: Tensor | None = None

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None = None, chunk: int = 64
    ) -> Tensor:
        heads = max(q.shape[1], k.shape[1], v.shape[1])
        q, k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (q, k, v))
        decay = None if decay is None else decay.expand(q.shape[:3])
        state = self.state
        if state is None:
            state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
        parts = []
        for start in range(0, q.shape[2], chunk):
            q_, k_, v_ = (x[:, :, start : start + chunk] for x in (q, k, v))
            scores = (q_ @ k_.transpose(-1, -2)).tril()
            if decay is None:
                parts.append(scores @ v_ + q_ @ state)
                state = state + k_.transpose(-1, -2) @ v_
                continue
            steps = decay[:, :, start : start + chunk]
            between = steps[..., None].expand(*steps.shape, steps.shape[-1]).tril(-1)
            between = between.cumsum(dim=-2).exp().to(q.dtype)
            before = steps.cumsum(dim=-1).exp().to(q.dtype)[..., None]
            parts.append((scores * between) @ v_ + (q_ * before) @ state)
            state = state * before[:, :, -1:]
            state = state + (k_ * between[:, :, -1, :, None]).transpose(-1, -2) @ v_
        self.state = state
        return torch.cat(parts, dim=2)
''',
    "RunningSum": '''
class RunningSum(nn.Module):
    """The sum along an axis of all that has come."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.reset()

    def reset(self) -> None:
        self.total: Tensor | None = None

    def add(self, x: Tensor) -> Tensor:
        """The sums up to each position of x."""
        y = x.cumsum(self.axis)
        if self.total is not None:
            y = y + self.total
        self.total = y.narrow(self.axis, -1, 1).clone()
        return y
''',
    "cached_attention": '''
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
''',
    "cached_mask": '''
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
''',
}
