"""A plain PyTorch TokenFormer, the peer of the benchmarks: same weights, same losses, its best settings."""

import json
import math
import os

import torch
import torch.nn.functional as F
from torch import nn

PRESETS = {  # vocab, layers, width, heads, qkv, proj, ffn, batch, context of the training step
    "tiny": (2048, 4, 192, 6, 192, 192, 768, 8, 256),
    "small": (4096, 6, 384, 6, 384, 384, 1536, 8, 256),
    "150m": (50304, 12, 768, 12, 768, 768, 3072, 1, 512),
    "long": (50304, 4, 192, 6, 192, 192, 768, 1, 1024),  # for questions of any length
}
SITES = ("query", "key", "value", "proj", "ffn")


class Pattention(nn.Module):
    """gelu(√n · a / (‖a‖ + ε)) · V with a = x·Kᵀ."""

    def __init__(self, n, d):
        super().__init__()
        self.keys = nn.Parameter(torch.empty(n, d))
        self.values = nn.Parameter(torch.empty(n, d))

    def forward(self, x):
        a = x @ self.keys.t()
        norm = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
        return F.gelu(a * (math.sqrt(a.shape[-1]) / (norm + 1e-6))) @ self.values


class Block(nn.Module):
    def __init__(self, d, heads, qkv, proj, ffn):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (Pattention(qkv, d) for _ in range(3))
        self.proj, self.ffn = Pattention(proj, d), Pattention(ffn, d)

    def forward(self, h, rotary, cache=None, at=0):
        b, t, d = h.shape
        u = F.layer_norm(h, (d,))
        split = lambda x: x.view(b, t, self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(u)), split(self.key(u)), split(self.value(u))
        q, k = rotary(q, at), rotary(k, at)
        if cache is None:
            c = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            keys, values = cache
            keys[:, :, at : at + t], values[:, :, at : at + t] = k, v
            k, v = keys[:, :, : at + t], values[:, :, : at + t]
            c = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        h = h + self.proj(c.transpose(1, 2).reshape(b, t, d))
        return h + self.ffn(F.layer_norm(h, (d,)))

    def step(self, h, rotary, cache, at, mask):
        """One token of each sequence, at the position in the tensor `at`: shapes that never change."""
        b, _, d = h.shape
        u = F.layer_norm(h, (d,))
        split = lambda x: x.view(b, 1, self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(u)), split(self.key(u)), split(self.value(u))
        q, k = rotary.at_position(q, at), rotary.at_position(k, at)
        keys, values = cache
        keys.index_copy_(2, at, k)
        values.index_copy_(2, at, v)
        c = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        h = h + self.proj(c.transpose(1, 2).reshape(b, 1, d))
        return h + self.ffn(F.layer_norm(h, (d,)))


class Rotary:
    """On the first quarter of each head's channels, channel i paired with channel i + n/2."""

    def __init__(self, channels, context):
        self.dims = channels // 4
        frequency = 1.0 / 10000 ** (torch.arange(0, self.dims, 2).float() / self.dims)
        angle = torch.outer(torch.arange(context).float(), frequency)
        angle = torch.cat((angle, angle), -1)
        self.cos, self.sin = angle.cos(), angle.sin()

    def __call__(self, x, at):
        t = x.shape[2]
        return self.rotate(x, self.cos[at : at + t].to(x.dtype), self.sin[at : at + t].to(x.dtype))

    def at_position(self, x, at):
        return self.rotate(x, self.cos[at].to(x.dtype), self.sin[at].to(x.dtype))

    def rotate(self, x, cos, sin):
        n = self.dims
        r, rest = x[..., :n], x[..., n:]
        half = torch.cat((-r[..., n // 2 :], r[..., : n // 2]), -1)
        return torch.cat((r * cos + half * sin, rest), -1)


class TokenFormer(nn.Module):
    def __init__(self, vocab, layers, d, heads, qkv, proj, ffn, context):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab, d))
        self.blocks = nn.ModuleList(Block(d, heads, qkv, proj, ffn) for _ in range(layers))
        self.gain, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        self.rotary = Rotary(d // heads, context)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 2 / (layers * math.sqrt(d)) if name.endswith("values") else 0.02
                nn.init.normal_(p, std=std)

    def hidden(self, tokens, caches=None, at=0):
        h = self.embedding[tokens]
        for i, block in enumerate(self.blocks):
            h = block(h, self.rotary, None if caches is None else caches[i], at)
        return F.layer_norm(h, h.shape[-1:], self.gain, self.bias)

    def next_logits(self, tokens, caches, at, mask):
        """Logits `[B, V]` after `tokens` `[B, 1]` at the position in the tensor `at`."""
        h = self.embedding[tokens]
        for block, cache in zip(self.blocks, caches):
            h = block.step(h, self.rotary, cache, at, mask)
        h = F.layer_norm(h, h.shape[-1:], self.gain, self.bias)
        return (h[:, -1] @ self.embedding.t()).float()

    def prompt_logits(self, tokens, caches):
        """Logits `[B, V]` of the last of `tokens` `[B, T]`."""
        return self.hidden(tokens, caches)[:, -1] @ self.embedding.t()

    def loss(self, tokens, targets):
        logits = self.hidden(tokens) @ self.embedding.t()
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def build(preset, context=None):
    vocab, layers, d, heads, qkv, proj, ffn, _, trained = PRESETS[preset]
    torch.manual_seed(0)
    return TokenFormer(vocab, layers, d, heads, qkv, proj, ffn, context or trained)


def save_for_tokenformer(model, preset, path):
    """Writes the model as a directory that `tokenformer logits --model` reads."""
    from safetensors.torch import save_file

    vocab, layers, d, heads, qkv, proj, ffn, _, context = PRESETS[preset]
    segment = lambda n: {"id": 0, "tokens": n, "tau": math.sqrt(n), "stage": 0, "born_step": 0}
    site = lambda n: {
        "kind": "pattention", "theta": "l2-norm-gelu", "eps": 1e-6, "norm": "joint", "tau": math.sqrt(n),
        "segments": [segment(n)],
    }
    block = {"query": site(qkv), "key": site(qkv), "value": site(qkv), "proj": site(proj), "ffn": site(ffn)}
    config = {
        "format": "tokenformer", "version": 2, "vocab": vocab, "width": d, "heads": heads, "context": context,
        "causal": True, "residual": "sequential", "positions": {"kind": "rotary", "fraction": 0.25, "base": 10000.0},
        "norm_eps": 1e-5, "block_norm": "plain", "final_norm": "affine", "head": "tied", "logit_scale": "one",
        "init": "released", "blocks": [block] * layers,
    }
    tensors = {"embedding": model.embedding, "final_norm.gain": model.gain, "final_norm.bias": model.bias}
    for i, b in enumerate(model.blocks):
        for name in SITES:
            for part in ("keys", "values"):
                tensors[f"blocks.{i}.{name}.segments.0.{part}"] = getattr(getattr(b, name), part)
    os.makedirs(path, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, os.path.join(path, "model.safetensors"))
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)
