"""Shows that the peer is the same function: the losses of one batch, here and by `tokenformer logits`.

    python check_equal.py path/to/tokenformer
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from model import PRESETS, build, save_for_tokenformer

for preset in ("tiny", "small"):
    model = build(preset)
    tokens = torch.randint(0, PRESETS[preset][0], (2, 65), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model.hidden(tokens[:, :-1]) @ model.embedding.t()
        nll = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(2, 64)
    with tempfile.TemporaryDirectory() as folder:
        save_for_tokenformer(model, preset, os.path.join(folder, "model"))
        with open(os.path.join(folder, "tokens.json"), "w") as f:
            json.dump(tokens.tolist(), f)
        out = os.path.join(folder, "out.safetensors")
        subprocess.run([sys.argv[1], "logits", "--model", os.path.join(folder, "model"),
                        "--tokens", os.path.join(folder, "tokens.json"), "--out", out], check=True, stdout=subprocess.DEVNULL)
        ours = load_file(out)
    difference = (ours["nll"] - nll).abs().max().item()
    print(f"{preset}: loss {nll.mean():.6f} here, {ours['nll'].mean():.6f} there, largest difference of a token {difference:.1e}")
    assert difference < 1e-4
