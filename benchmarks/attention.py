"""How fast attention alone is, with each of PyTorch's kernels, at the number of tokens that a model has.

Some kernels are slower where the number of keys is no multiple of 128. *Rounded up* is what they would do with more
tokens, which is another product. *Mean keys* gives the same as before: the keys are filled up with copies of their
mean, the values with zeros, and the output is divided by the weight of the true keys. By Jensen's inequality a mean
key weighs no more than the true ones do on average, so that weight is nearly 1, and nothing is lost but a rounding.

    python -m benchmarks.attention --model sd3-medium --size 1024 --batch 8 --compile
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.common import CONFIGS, TEXT_TOKENS, options_of
from benchmarks.report import Report, ratio, take_turns

MULTIPLE = 128
CALLS = 10


def with_mean_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (rows, heads, tokens, width) over a number of keys that is a multiple of 128, and none more."""
    missing = -k.shape[2] % MULTIPLE
    if not missing:
        return F.scaled_dot_product_attention(q, k, v)
    mean = k.mean(dim=2, keepdim=True)
    keys = torch.cat([k, mean.expand(-1, -1, missing, -1)], dim=2)
    values = F.pad(v, (0, 0, 0, missing))
    if q.is_cuda:
        output, logsumexp, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, keys, values, None, True)
    else:
        output, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, keys, values)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) * mean.to(wide)).sum(dim=-1) * q.shape[-1] ** -0.5
    of_mean_keys = missing * torch.exp(scores - logsumexp.reshape(scores.shape).to(wide))
    found: Tensor = (output.to(wide) / (1 - of_mean_keys)[..., None]).to(q.dtype)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv)
    if options.model == "emoji":
        raise SystemExit("give --model a published architecture, such as sd3-medium")
    config, gpu = CONFIGS[options.model], options.device.startswith("cuda")
    side = options.size // (8 * (2 if "flux" in options.model else config["patch_size"]))
    tokens = TEXT_TOKENS.get(options.model, 333) + side * side
    more = tokens + -tokens % MULTIPLE
    dtype: torch.dtype = getattr(torch, options.dtype)

    def parts(count: int) -> list[Tensor]:
        # As projections give them: a token's heads lie side by side.
        sizes = (options.batch, count, config["num_attention_heads"], config["attention_head_dim"])
        return [torch.randn(sizes, device=options.device, dtype=dtype).transpose(1, 2) for _ in range(3)]

    kernels = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION] if gpu else [SDPBackend.FLASH_ATTENTION]
    mean_keys = torch.compile(with_mean_keys, backend=options.backend) if options.compile else with_mean_keys
    own, rounded = parts(tokens), parts(more)
    calls: dict[str, Callable[[], Tensor]] = {}

    def stock(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return F.scaled_dot_product_attention(q, k, v)

    for kernel in kernels:
        calls[kernel.name.lower()] = partial(stock, kernel, *own)
        calls[f"{kernel.name.lower()}, rounded up"] = partial(stock, kernel, *rounded)
    calls["mean keys"] = partial(mean_keys, *own)

    def repeated(call: Callable[[], Tensor]) -> None:
        for _ in range(CALLS):
            call()

    with torch.inference_mode():
        q, k, v = (part.to(torch.float32) for part in own)
        want = F.scaled_dot_product_attention(q, k, v)
        away = {name: _away(call(), want) for name, call in calls.items()}  # a warm-up too
        times = take_turns({name: partial(repeated, call) for name, call in calls.items()}, options)
    first = next(iter(calls))
    rows = []
    for name in calls:
        keys = more if "rounded" in name else tokens
        flops = 4 * options.batch * config["num_attention_heads"] * config["attention_head_dim"] * keys * keys
        rows.append(
            {
                "kernel": name,
                "tokens": keys,
                "TFLOP/s": 1e-12 * flops * CALLS / ratio(times[name], [1.0] * len(times[name])),
                f"x the time of {first}": ratio(times[name], times[first]),
                "away from float32": away[name],
            }
        )
    report = Report(f"Attention, {options.model}", options)
    report.notes = report.notes[:1]
    report.table(f"{options.batch} rows, {config['num_attention_heads']} heads", rows)
    report.finish()
    return 0


def _away(got: Tensor, want: Tensor) -> Any:
    return float((got - want).norm() / want.norm()) if got.shape == want.shape else ""


if __name__ == "__main__":
    sys.exit(main())
