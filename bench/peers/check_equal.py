"""Shows that the peers are the same functions: the losses of one batch, here and by `tokenformer logits`, and the classes'
probabilities of pictures, here and by `tokenformer predict`.

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

import images
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

for preset in ("vit-mnist", "vit-b16"):
    model = images.build(preset)
    size, channels, _, classes = images.PRESETS[preset][:4]
    pictures = torch.randint(0, 256, (2, size, size, channels), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        probabilities = model((pictures.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25).softmax(-1)
    with tempfile.TemporaryDirectory() as folder:
        images.save_for_tokenformer(model, preset, os.path.join(folder, "model"))
        files = [os.path.join(folder, f"{i}.png") for i in range(2)]
        for picture, file in zip(pictures, files):
            images.save_png(picture, file)
        found = subprocess.run([sys.argv[1], "predict", *files, "--model", os.path.join(folder, "model"), "--top", str(classes),
                                "--json"], check=True, capture_output=True, text=True)
    # Differences are relative: with a thousand classes, each probability is small.
    difference = max(abs(answer["probability"] / probabilities[i, answer["number"]].item() - 1)
                     for i, picture in enumerate(json.loads(found.stdout)["pictures"]) for answer in picture["classes"])
    print(f"{preset}: largest relative difference of a probability {difference:.1e}")
    assert difference < 1e-4
