"""What emitted decoders bring along: the states, attention to what they hold, and the mask that goes with it, as source."""

from __future__ import annotations

# The class that holds the state of each op that has one.
STATE_CLASSES = {
    "append": "Cache",
    "running_attend": "RunningAttention",
    "running_sum": "RunningSum",
    "recall": "Memory",
    "remember": "Memory",
}

STATE_HELPERS: dict[str, str] = {
    "Callable": "",  # an import
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

    `within` computes it over the steps of one call. q and k are [b, h, s, d], v is [b, h, s, e],
    decay [b, h, s] or [b, h, s, d] is the logarithm of what a step keeps.
    """

    def __init__(self, within: Callable[..., Tensor]) -> None:
        super().__init__()
        self.within = within
        self.reset()

    def reset(self) -> None:
        self.state: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None = None) -> Tensor:
        """What q reads of the sum, which goes on with k and v."""
        heads = max(q.shape[1], k.shape[1], v.shape[1])
        q, k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (q, k, v))
        y, before = self.within(q, k, v, decay), torch.ones_like(q[..., :1])
        if decay is not None:
            shape = q.shape if decay.dim() == 4 else q.shape[:3]
            decay = decay.expand(shape).reshape(*q.shape[:3], -1)
            before = decay.cumsum(dim=2).exp().to(q.dtype)
            k = k * (decay.flip(2).cumsum(dim=2).flip(2) - decay).exp().to(q.dtype)
        wide = torch.promote_types(q.dtype, torch.float32)  # a long sum does not fit half precision
        state = (k.transpose(-1, -2) @ v).to(wide)
        if self.state is not None:
            y = y + ((q * before).to(wide) @ self.state).to(q.dtype)
            state = state + self.state * before[:, :, -1, :, None]
        self.state = state
        return y
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
    "Memory": '''
class Memory(nn.Module):
    """A state that each call leaves to the next; zeros at first."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.state: Tensor | None = None

    def recall(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if self.state is None else self.state

    def remember(self, x: Tensor, state: Tensor) -> Tensor:
        """x as it is; the next call recalls the state."""
        self.state = state
        return x
''',
    "Kept": '''
class Kept(nn.Module):
    """What is computed in the first call, for all calls until a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.values: Tensor | tuple[Tensor, ...] | None = None
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
    "parallel_linear": '''
def parallel_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, with a single row shared out to the cores of a CPU: PyTorch has one do it all."""
    parts = math.gcd(weight.shape[0], torch.get_num_threads())
    fits = x.numel() == x.shape[-1] and x.dtype == torch.float32 and x.device.type == "cpu"
    if parts == 1 or not fits:
        return F.linear(x, weight, bias)
    shares = weight.t().unflatten(1, (parts, -1)).transpose(0, 1)  # [parts, in, out / parts]
    y = torch.bmm(x.reshape(1, 1, -1).expand(parts, 1, -1), shares).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias
''',
    "ParallelLinear": '''
class ParallelLinear(nn.Linear):
    """nn.Linear, fast for a single row."""

    def forward(self, x: Tensor) -> Tensor:
        return parallel_linear(x, self.weight, self.bias)
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
