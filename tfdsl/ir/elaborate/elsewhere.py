"""What goes by another name here: for names that array libraries have and the language has not, how it says the same."""

from __future__ import annotations

_ZEROS = "`expand(0.0, shape=[batch, 8])` is a tensor of one number"
_REARRANGE = '`rearrange(x, "b s (h d) -> b h s d", h=8)` splits, reorders and merges axes'

ELSEWHERE = {
    **dict.fromkeys(("reshape", "view", "permute", "flatten", "unflatten", "squeeze", "unsqueeze"), _REARRANGE),
    **dict.fromkeys(
        ("repeat_interleave", "tile", "broadcast_to"), '`rearrange(x, "b d -> b n d", n=4)` repeats an axis'
    ),
    "transpose": "`swap(x)` exchanges the last two axes",
    **dict.fromkeys(("cat", "concatenate"), "`concat(a, b, axis=1)` joins tensors"),
    "stack": '`concat(rearrange(a, "b d -> b 1 d"), rearrange(b, "b d -> b 1 d"), axis=1)` joins along a new axis',
    **dict.fromkeys(("chunk", "unbind"), "`split(x, parts=2, axis=-1)` cuts an axis into parts"),
    **dict.fromkeys(("clamp", "clip"), "`minimum(maximum(x, low), high)`"),
    **dict.fromkeys(("var", "variance"), "`mean((x - mean(x, keep=true)) ** 2)`"),
    "std": "`sqrt(mean((x - mean(x, keep=true)) ** 2))`",
    **dict.fromkeys(("empty", "zeros_like", "ones_like", "full_like"), _ZEROS),
    **dict.fromkeys(("arange", "range"), "`iota(n)` is 0 .. n-1, `positions(x, axis=1)` as many as an axis has"),
    **dict.fromkeys(("flip", "reverse"), "`gather(x, n - 1 - iota(n), axis=1)` turns an axis of n around"),
    **dict.fromkeys(("shape", "size"), "a name in the signature, `x: [batch, seq, width]`, is the size of its axis"),
    **dict.fromkeys(("sort", "argsort"), "`values, order = top_k(x, k=n)` sorts n, the largest first"),
    **dict.fromkeys(
        ("batch_norm", "batchnorm"), "`frozen_batch_norm` of std/norms.tfm; the language has no statistics of a batch"
    ),
    **dict.fromkeys(("dot", "bmm", "mm"), "`a @ b`"),
    "ceil": "`-floor(-x)`",
    "round": "`floor(x + 0.5)`",
    "sign": "`where(x > 0, 1, where(x < 0, -1, 0))`",
    "rsqrt": "`1 / sqrt(x)`",
    "square": "`x * x`",
    "swish": "`silu(x)`",
    "glu": "`a * sigmoid(b)` of `a, b = split(x, parts=2)`",
    "elu": "`where(x > 0, x, exp(minimum(x, 0)) - 1)`",
    "leaky_relu": "`maximum(x, 0.01 * x)`",
    "logsumexp": "`log(sum(exp(x - m), keep=true)) + m` with `m = max(x, keep=true)`",
    "norm": "`sqrt(sum(x * x, keep=true))`",
    **dict.fromkeys(("rnn", "gru", "lstm"), "`scan(x, step=..., start=[...])` runs a step along an axis"),
    **dict.fromkeys(
        ("max_pool", "avg_pool", "maxpool", "avgpool"),
        '`max(rearrange(x, "b d (h p) (w q) -> b d h w (p q)", p=2, q=2))`',
    ),
    "masked_fill": "`where(condition, x, -1e9)`",
    **dict.fromkeys(("index_select", "take"), "`gather(x, index, axis=1)`, or `take_along` for elements"),
    **dict.fromkeys(("attention", "scaled_dot_product_attention", "sdpa"), "`attend(q, k, v, mask=causal)`"),
}
