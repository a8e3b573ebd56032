"""A TokenFormer of this project in plain PyTorch, for comparison: `TokenFormer(model_dir)`."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


# Positions that share a scale in 8 bits.
BLOCK = 256


def rounded(matrix, precision, transposed):
    """The matrix as `--precision` keeps it: a right factor `[K, N]` is its transpose, or itself."""
    if precision == "f32":
        return matrix
    if precision == "bf16":
        return matrix.bfloat16().float()
    factor = matrix.T if transposed else matrix
    blocks = []
    for block in factor.split(BLOCK):
        scale = block.abs().amax(0) / 127
        inverse = torch.where(scale > 0, 1 / scale, 0.0)
        blocks.append((block * inverse).round() * scale)
    factor = torch.cat(blocks)
    return factor.T.contiguous() if transposed else factor


class TokenFormer(torch.nn.Module):
    """Reads `config.json` (version 2) and `model.safetensors` of a model directory: tied head, Pattention sites with
    l2-norm-gelu, under a joint norm or one per segment."""

    def __init__(self, model_dir, precision="f32"):
        super().__init__()
        self.spec = spec = json.loads((Path(model_dir) / "config.json").read_text())
        assert spec["version"] == 2 and spec["causal"] and spec["residual"] == "sequential"
        assert spec["head"] == "tied" and spec["block_norm"] == "plain" and spec["logit_scale"] == "one"
        self.weights = load_file(Path(model_dir) / "model.safetensors")
        self.weights["embedding"] = rounded(self.weights["embedding"], precision, True)
        self.config = SimpleNamespace(
            model_type="tokenformer", max_position_embeddings=spec["context"]
        )
        self.device = torch.device("cpu")
        self.sites = {}
        for b, block in enumerate(spec["blocks"]):
            for name, site in block.items():
                assert site["kind"] == "pattention" and site["theta"] == "l2-norm-gelu"
                parts = []
                for segment in site["segments"]:
                    path = f"blocks.{b}.{name}.segments.{segment['id']}"
                    keys = rounded(self.weights[f"{path}.keys"], precision, True)
                    values = rounded(self.weights[f"{path}.values"], precision, False)
                    parts.append((keys, values, segment["tau"]))
                if site["norm"] == "joint":
                    keys, values, _ = zip(*parts)
                    parts = [(torch.cat(keys), torch.cat(values), site["tau"])]
                self.sites[b, name] = (parts, site["eps"])
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
        parts, eps = self.sites[b, name]
        y = 0
        for keys, values, tau in parts:
            scores = x @ keys.T
            y = y + F.gelu(scores * (tau / (scores.norm(dim=-1, keepdim=True) + eps))) @ values
        return y

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
