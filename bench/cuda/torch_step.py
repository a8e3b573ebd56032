"""Times PyTorch's best on the training step that gpu-check times: 150m, bf16 autocast, SDPA, torch.compile, fused AdamW.

    python bench/cuda/torch_step.py [--batch 8] [--context 2048] [--steps 10] [--out torch.json]

Prints one JSON object: milliseconds (median, fastest, slowest), tokens per second, MFU (6N + 12LTd) if the GPU's peak is
known, peak memory, and the rates of SDPA's forward and backward pass at the head sizes of the published models.
"""

import argparse
import json
import os
import statistics
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
from model import PRESETS, build  # noqa: E402

# Dense bf16 TFLOP/s by NVIDIA's data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121}


def timed(work, times):
    """Milliseconds of each call on the GPU."""
    all_ms = []
    for _ in range(times):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        all_ms.append(start.elapsed_time(end))
    return all_ms


def attention(channels, heads, batch, context):
    """TFLOP/s of SDPA, forward and backward, causal counted half."""
    shape = (batch, heads, context, channels)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    d_o = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    timed(forward, 3)
    forward_ms = statistics.median(timed(forward, 10))
    both = lambda: torch.autograd.grad(forward(), (q, k, v), d_o)
    timed(both, 3)
    both_ms = statistics.median(timed(both, 10))
    flop = 4 * batch * heads * context * context * channels / 2
    return {"forward_tflops": flop / forward_ms / 1e9, "backward_tflops": 2.5 * flop / (both_ms - forward_ms) / 1e9}


def train(batch, context, steps):
    vocab, layers, width = PRESETS["150m"][0], PRESETS["150m"][1], PRESETS["150m"][2]
    model = build("150m", context).cuda()
    model.rotary.cos, model.rotary.sin = model.rotary.cos.cuda(), model.rotary.sin.cuda()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    loss_of = torch.compile(model.loss)
    tokens = torch.randint(vocab, (batch * context + 1,), device="cuda")
    inputs, targets = tokens[:-1].view(batch, context), tokens[1:].view(batch, context)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for _ in range(5):
        step()
    torch.cuda.reset_peak_memory_stats()
    all_ms = timed(step, steps)
    ms = statistics.median(all_ms)
    rate = batch * context / ms * 1e3
    parameters = sum(p.numel() for p in model.parameters())
    name = torch.cuda.get_device_name()
    peak = next((value for part, value in PEAKS.items() if part in name), None)
    flop = 6 * parameters + 12 * layers * context * width
    return {
        "gpu": name,
        "torch": torch.__version__,
        "parameters": parameters,
        "step_ms": ms,
        "fastest_ms": min(all_ms),
        "slowest_ms": max(all_ms),
        "tokens_per_second": rate,
        "mfu": rate * flop / (peak * 1e12) if peak else None,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = True
    result = train(args.batch, args.context, args.steps)
    result["attention"] = {
        f"{channels}x{heads}": attention(channels, heads, args.batch, args.context)
        for channels, heads in ((64, 12), (80, 16), (96, 16), (128, 16))
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
