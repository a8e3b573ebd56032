"""large.py FILE: a checkpoint of the published 1.5B shapes (6.35 GB), random, and its configuration beside it.

As the published files were made, all tensors are views into two storages.

    python large.py /tmp/large/pytorch_model.bin
    time sh -c 'cp /tmp/large/pytorch_model.bin /tmp/large/copy.bin && sync /tmp/large/copy.bin'
    /usr/bin/time -v tokenformer convert --from /tmp/large/pytorch_model.bin --to /tmp/large/model
"""

import json
import pathlib
import sys
from collections import OrderedDict

import numpy as np
import torch

layers, width, slots, ffn, rows = 40, 1536, 1536, 6144, 50304
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
config = {
    "num_layers": layers, "hidden_size": width, "num_attention_heads": 16,
    "qkv_slot_num": slots, "proj_slot_num": slots, "ffn_slot_num": ffn,
    "seq_length": 2048, "max_position_embeddings": 2048, "pos_emb": "rotary", "rotary_pct": 0.25,
    "norm": "layernorm_nonparam", "final_norm": "layernorm",
    "attention_config": [[["tokenformer"], layers]], "norm_activation_type": "l2_norm_gelu",
}  # fmt: skip
(path.parent / "config.json").write_text(json.dumps(config, indent=2))

shapes = OrderedDict([("sequential.0.word_embeddings.weight", rows)])
for block in range(2, layers + 2):
    for site, tokens in [("attention.query", slots), ("attention.key", slots), ("attention.value", slots), ("attention.proj", slots), ("mlp", ffn)]:
        for part in ["key", "value"]:
            shapes[f"sequential.{block}.{site}.{part}_param_tokens"] = tokens
flat = np.empty(sum(shapes.values()) * width, dtype=np.float32)
random = np.random.default_rng(0)
for start in range(0, len(flat), 1 << 24):
    part = flat[start : start + (1 << 24)]
    random.standard_normal(dtype=np.float32, out=part)
    part *= 0.02
flat = torch.from_numpy(flat)
tensors, offset = OrderedDict(), 0
for name, tokens in shapes.items():
    tensors[name] = flat[offset : offset + tokens * width].view(tokens, width)
    offset += tokens * width
norm = torch.cat([torch.ones(width), torch.zeros(width)])
tensors[f"sequential.{layers + 3}.norm.weight"] = norm[:width]
tensors[f"sequential.{layers + 3}.norm.bias"] = norm[width:]
torch.save(tensors, path)
print(f"{path}: {path.stat().st_size} bytes, {len(tensors)} tensors")
