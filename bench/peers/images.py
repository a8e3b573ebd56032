"""A plain PyTorch TokenFormer for pictures, the peer of the benchmarks: same weights, same logits, its best settings."""

import json
import math
import os
import struct
import zlib

import torch
import torch.nn.functional as F
from torch import nn

from model import SITES, Pattention

PRESETS = {  # height and width, channels, patch, classes, layers, width, heads, qkv and proj, ffn, batch of the training step
    "vit-digits": (8, 1, 2, 10, 3, 64, 4, 64, 256, 64),
    "vit-mnist": (28, 1, 4, 10, 4, 96, 3, 96, 384, 64),
    "vit-b16": (224, 3, 16, 1000, 12, 768, 12, 768, 3072, 4),
}
EPS = 1e-6


class Block(nn.Module):
    def __init__(self, d, heads, qkv, ffn):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.proj = (Pattention(qkv, d) for _ in range(4))
        self.ffn = Pattention(ffn, d)

    def forward(self, h):
        b, t, d = h.shape
        u = F.layer_norm(h, (d,), eps=EPS)
        split = lambda x: x.view(b, t, self.heads, -1).transpose(1, 2)
        c = F.scaled_dot_product_attention(split(self.query(u)), split(self.key(u)), split(self.value(u)))
        h = h + self.proj(c.transpose(1, 2).reshape(b, t, d))
        return h + self.ffn(F.layer_norm(h, (d,), eps=EPS))


class ImageTokenFormer(nn.Module):
    """Large models have a class token, small ones read the mean of their patches."""

    def __init__(self, size, channels, patch, classes, layers, d, heads, qkv, ffn):
        super().__init__()
        count = (size // patch) ** 2
        self.patches = nn.Conv2d(channels, d, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, d)) if size == 224 else None
        self.positions = nn.Parameter(torch.empty(count + (self.class_token is not None), d))
        self.blocks = nn.ModuleList(Block(d, heads, qkv, ffn) for _ in range(layers))
        self.gain, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        self.head = nn.Linear(d, classes)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                std = 2 / (layers * math.sqrt(d)) if name.endswith("values") else 0.02
                nn.init.normal_(p, std=std)

    def forward(self, pixels):
        h = self.patches(pixels).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            h = torch.cat((self.class_token.expand(h.shape[0], 1, -1), h), 1)
        h = h + self.positions
        for block in self.blocks:
            h = block(h)
        h = h.mean(1) if self.class_token is None else h[:, 0]
        return self.head(F.layer_norm(h, h.shape[-1:], self.gain, self.bias, EPS))

    def loss(self, pixels, classes):
        return F.cross_entropy(self(pixels).float(), classes)


def build(preset):
    torch.manual_seed(0)
    return ImageTokenFormer(*PRESETS[preset][:-1])


def data(preset, batch):
    size, channels, _, classes = PRESETS[preset][:4]
    pixels = torch.tensor([i * 7919 % 255 / 127.0 - 1.0 for i in range(batch * channels * size * size)])
    return pixels.view(batch, channels, size, size), torch.tensor([i * 7919 % classes for i in range(batch)])


def save_for_tokenformer(model, preset, path):
    """Writes the model as a directory that `tokenformer predict --model` reads."""
    from safetensors.torch import save_file

    size, channels, patch, classes, layers, d, heads, qkv, ffn, _ = PRESETS[preset]
    segment = lambda n: {"id": 0, "tokens": n, "tau": math.sqrt(n), "stage": 0, "born_step": 0}
    site = lambda n: {
        "kind": "pattention", "theta": "l2-norm-gelu", "eps": 1e-6, "norm": "joint", "tau": math.sqrt(n),
        "segments": [segment(n)],
    }
    block = {name: site(ffn if name == "ffn" else qkv) for name in SITES}
    pool = "mean" if model.class_token is None else "class"
    config = {
        "format": "tokenformer", "version": 2,
        "input": {"kind": "image", "height": size, "width": size, "channels": channels, "patch": [patch, patch], "pool": pool},
        "vocab": classes, "width": d, "heads": heads, "context": len(model.positions), "causal": False,
        "residual": "sequential", "positions": {"kind": "learned"}, "norm_eps": EPS, "block_norm": "plain",
        "final_norm": "affine", "head": "untied", "head_bias": True, "logit_scale": "one", "init": "released",
        "blocks": [block] * layers,
    }
    tensors = {
        "patches.weight": model.patches.weight.flatten(1), "patches.bias": model.patches.bias,
        "positions.weight": model.positions, "final_norm.gain": model.gain, "final_norm.bias": model.bias,
        "head.weight": model.head.weight, "head.bias": model.head.bias,
    }
    if model.class_token is not None:
        tensors["class_token.weight"] = model.class_token
    for i, b in enumerate(model.blocks):
        for name in SITES:
            for part in ("keys", "values"):
                tensors[f"blocks.{i}.{name}.segments.0.{part}"] = getattr(getattr(b, name), part)
    preprocess = {
        "decode": {"background": [255, 255, 255], "max_pixels": 89478485, "orient": True, "lenient": False}, "resized": None,
        "input": {"height": size, "width": size, "channels": channels, "crop_share": 1.0, "filter": "bicubic",
                  "mean": [0.5] * channels, "std": [0.25] * channels},
    }
    os.makedirs(path, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, os.path.join(path, "model.safetensors"))
    contents = {"config": config, "preprocess": preprocess, "classes": [f"class {i}" for i in range(classes)]}
    for name, content in contents.items():
        with open(os.path.join(path, f"{name}.json"), "w") as f:
            json.dump(content, f)


def save_png(bytes_, path):
    """Writes bytes `[H, W, C]`, of 1 or 3 channels, as a PNG file."""
    height, width, channels = bytes_.shape
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in bytes_)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
