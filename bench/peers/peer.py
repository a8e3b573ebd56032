"""Times the PyTorch peer: prints one JSON object like `tokenformer bench --json`.

    python peer.py train|prefill|decode|predict --preset tiny|vit-b16|... --mode MODE

Modes: eager, fused, compile, autocast, autocast-compile to train; eager, compile, bf16, bf16-compile else. Models of pictures
train and predict, those of texts train, prefill and decode. With --ask it measures for every line of standard
input, which is a number of steps.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
import torch._inductor.config

import images
from model import PRESETS, build

DECODE_CONTEXT, DECODE_PROMPT = 128, 16


def data(preset, extra=0):
    vocab, batch, context = PRESETS[preset][0], PRESETS[preset][7], PRESETS[preset][8]
    ids = torch.tensor([i * 7919 % vocab for i in range(batch * context + 1)])
    return ids[:-1].view(batch, context), ids[1:].view(batch, context)


def train(preset, mode):
    of_images = preset in images.PRESETS
    model = images.build(preset) if of_images else build(preset)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    fused = mode in ("fused", "compile", "autocast", "autocast-compile")
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    loss_of = torch.compile(model.loss) if "compile" in mode else model.loss
    inputs, targets = images.data(preset, images.PRESETS[preset][-1]) if of_images else data(preset)
    items = targets.numel()

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in mode):
            loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return time.perf_counter() - start

    for _ in range(3 if "compile" in mode else 1):
        step()
    return lambda: items / step()


def compiled(function, mode):
    """The function, compiled with its weights as constants if the mode says so."""
    if "compile" not in mode:
        return function
    torch._inductor.config.freezing = True
    return torch.compile(function)


@torch.no_grad()
def prefill(preset, mode):
    dtype = torch.bfloat16 if "bf16" in mode else torch.float32
    model = build(preset).to(dtype)
    inputs, _ = data(preset)
    caches = make_caches(preset, model, inputs.shape[0], inputs.shape[1], dtype)
    logits = compiled(model.prompt_logits, mode)

    def step():
        start = time.perf_counter()
        logits(inputs, caches)
        return time.perf_counter() - start

    for _ in range(3 if "compile" in mode else 1):
        step()
    return lambda: inputs.numel() / step()


@torch.no_grad()
def decode(preset, mode):
    dtype = torch.bfloat16 if "bf16" in mode else torch.float32
    model = build(preset).to(dtype)
    ids = torch.tensor([[i * 7919 % PRESETS[preset][0] for i in range(DECODE_CONTEXT)]])
    caches = make_caches(preset, model, 1, DECODE_CONTEXT, dtype)
    positions = torch.arange(DECODE_CONTEXT)
    masks = (positions[None, :] <= positions[:, None])[:, None, None, None, :]
    logits = compiled(model.next_logits, mode)

    def eager(at):
        (model.hidden(ids[:, at : at + 1], caches, at)[:, -1] @ model.embedding.t()).float()

    def fixed(at):
        logits(ids[:, at : at + 1], caches, positions[at : at + 1], masks[at])

    token = fixed if "compile" in mode else eager

    def run():
        model.hidden(ids[:, :DECODE_PROMPT], caches)
        start = time.perf_counter()
        for at in range(DECODE_PROMPT, DECODE_CONTEXT):
            token(at)
        return (DECODE_CONTEXT - DECODE_PROMPT) / (time.perf_counter() - start)

    run()
    return run


@torch.no_grad()
def predict(preset, mode, batch):
    dtype = torch.bfloat16 if "bf16" in mode else torch.float32
    pixels = images.data(preset, batch)[0].to(dtype)
    logits = compiled(images.build(preset).to(dtype), mode)

    def step():
        start = time.perf_counter()
        logits(pixels)
        return time.perf_counter() - start

    for _ in range(3 if "compile" in mode else 1):
        step()
    return lambda: batch / step()


def make_caches(preset, model, batch, context, dtype):
    heads, channels = PRESETS[preset][3], PRESETS[preset][2] // PRESETS[preset][3]
    make = lambda: torch.zeros(batch, heads, context, channels, dtype=dtype)
    return [(make(), make()) for _ in model.blocks]


def measure(args, rate):
    """Prints the median rate of some steps, once or whenever it is asked to."""
    unit = "images_per_s" if args.preset in images.PRESETS else "tokens_per_s"
    for steps in sys.stdin if args.ask else [args.steps]:
        rates = [rate() for _ in range(int(steps))]
        print(json.dumps({
            "what": args.what, "preset": args.preset, "mode": args.mode, "torch": torch.__version__,
            unit: statistics.median(rates), "min": min(rates), "max": max(rates),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "prefill", "decode", "predict"])
    parser.add_argument("--preset", choices=[*PRESETS, *images.PRESETS], default="tiny")
    parser.add_argument("--mode", default="eager")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1, help="pictures at a time, to predict")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ask", action="store_true", help="measure for every line of standard input, a number of steps")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    more = [args.batch] if args.what == "predict" else []
    run = {"train": train, "prefill": prefill, "decode": decode, "predict": predict}[args.what]
    with torch.set_grad_enabled(args.what == "train"):
        measure(args, run(args.preset, args.mode, *more))
