"""A server's loop in plain PyTorch: the 150m preset, as many texts at a time as streams, without a network.

    python peer.py [--mode eager|compile] [--streams 16] [--tokens 64] [--threads 2] [--preset 150m]

It prints `ready` when everything is compiled, and then for each line on standard input the tokens per second of one round:
all prompts in one pass, then the next token of every text in one pass each, drawn from the softmax of its logits. All texts
begin and end together and have prompts of one length, so nothing is padded.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
import torch._inductor.config

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from model import PRESETS, build  # noqa: E402

PROMPT = 24


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--preset", default="150m")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = build(args.preset)
    vocab, _, width, heads, *_ = PRESETS[args.preset]
    context = PROMPT + args.tokens
    make = lambda: torch.zeros(args.streams, heads, context, width // heads)
    caches = [(make(), make()) for _ in model.blocks]
    positions = torch.arange(context)
    masks = (positions[None, :] <= positions[:, None])[:, None, None, None, :]
    next_logits = model.next_logits
    if args.mode == "compile":
        torch._inductor.config.freezing = True
        next_logits = torch.compile(next_logits)

    def step(tokens, at):
        if args.mode == "compile":
            return next_logits(tokens, caches, positions[at : at + 1], masks[at])
        return model.hidden(tokens, caches, at)[:, -1] @ model.embedding.t()

    def round(prompts):
        started = time.perf_counter()
        logits = model.prompt_logits(prompts, caches)
        texts = []
        for at in range(PROMPT, context):
            tokens = torch.multinomial(logits.softmax(-1), 1)
            texts.append(tokens)
            if at + 1 < context:
                logits = step(tokens, at)
        count = torch.cat(texts, 1).numel()
        return count / (time.perf_counter() - started)

    for seed in range(2):
        round(torch.randint(vocab, (args.streams, PROMPT)))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(round(torch.randint(vocab, (args.streams, PROMPT))), flush=True)


if __name__ == "__main__":
    main()
