"""Makes of a model directory one whose sites have two stages: `python make_stages.py FROM TO`.

The first half of each site's parameter tokens becomes the first stage, the rest the second, with a norm per segment. The
parameters and the operations of the whole stay as they were, so the first stage costs about half as much.
"""

import json
import math
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file


def main():
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    for number, block in enumerate(config["blocks"]):
        for name, site in block.items():
            (whole,) = site["segments"]
            first = whole["tokens"] // 2
            sizes = [first, whole["tokens"] - first]
            site["norm"] = "segment"
            site["segments"] = [
                whole | {"id": i, "tokens": size, "tau": math.sqrt(size), "stage": i, "born_step": i} for i, size in enumerate(sizes)
            ]
            for part in ("keys", "values"):
                rows = tensors.pop(f"blocks.{number}.{name}.segments.0.{part}").split(sizes)
                for i, own in enumerate(rows):
                    tensors[f"blocks.{number}.{name}.segments.{i}.{part}"] = own.contiguous()
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(config))
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")


if __name__ == "__main__":
    main()
