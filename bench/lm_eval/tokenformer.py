"""A TokenFormer of this project in plain PyTorch, for comparison: `TokenFormer(model_dir)`."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class TokenFormer(torch.nn.Module):
    """Reads `config.json` and `model.safetensors` of a model directory. Joint norm and l2-norm-gelu only."""

    def __init__(self, model_dir):
        super().__init__()
        self.spec = spec = json.loads((Path(model_dir) / "config.json").read_text())
        assert spec["theta"] == "l2-norm-gelu" and spec["logit_scale"] == "one"
        self.weights = load_file(Path(model_dir) / "model.safetensors")
        self.config = SimpleNamespace(
            model_type="tokenformer", max_position_embeddings=spec["context"]
        )
        self.device = torch.device("cpu")
        self.sites = {}
        for b, block in enumerate(spec["blocks"]):
            for name, site in block.items():
                assert site["norm"] == "joint"
                parts = [
                    [self.weights[f"blocks.{b}.{name}.segments.{s}.{part}"] for s in range(len(site["segments"]))]
                    for part in ("keys", "values")
                ]
                self.sites[b, name] = (*map(torch.cat, parts), site["tau"])
        channels = spec["width"] // spec["heads"]
        self.rotated = 0
        if spec["positions"]["kind"] == "rotary":
            self.rotated = int(channels * spec["positions"]["fraction"])
            exponents = torch.arange(0, self.rotated, 2).float() / self.rotated
            angles = torch.outer(torch.arange(spec["context"]).float(), spec["positions"]["base"] ** -exponents)
            angles = torch.cat([angles, angles], dim=-1)
            self.cos, self.sin = angles.cos(), angles.sin()

    def tie_weights(self):
        """The head is the embedding."""

    def pattention(self, x, b, name):
        keys, values, tau = self.sites[b, name]
        scores = x @ keys.T
        scores = scores * (tau / (scores.norm(dim=-1, keepdim=True) + self.spec["theta_eps"]))
        return F.gelu(scores) @ values

    def rotate(self, x):  # [B, H, T, C]
        r, t = self.rotated, x.shape[2]
        head, rest = x[..., :r], x[..., r:]
        half = torch.cat([-head[..., r // 2 :], head[..., : r // 2]], dim=-1)
        return torch.cat([head * self.cos[:t] + half * self.sin[:t], rest], dim=-1)

    def forward(self, tokens):
        return SimpleNamespace(logits=self.head(self.hidden(tokens)))

    def head(self, h):
        return h @ self.weights["embedding"].T

    def hidden(self, tokens):
        spec, eps = self.spec, self.spec["norm_eps"]
        d, heads = spec["width"], spec["heads"]
        n, t = tokens.shape
        norm = lambda h, *affine: F.layer_norm(h, (d,), *affine, eps=eps)
        split = lambda x: x.view(n, t, heads, d // heads).transpose(1, 2)
        h = self.weights["embedding"][tokens]
        for b in range(len(spec["blocks"])):
            u = norm(h)
            q, k, v = (split(self.pattention(u, b, name)) for name in ("query", "key", "value"))
            if self.rotated:
                q, k = self.rotate(q), self.rotate(k)
            c = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.pattention(c.transpose(1, 2).reshape(n, t, d), b, "proj")
            h = h + self.pattention(norm(h), b, "ffn")
        affine = [self.weights[f"final_norm.{part}"] for part in ("gain", "bias")] if spec["final_norm"] == "affine" else []
        return norm(h, *affine)
