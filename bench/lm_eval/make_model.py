"""Makes a model directory with random weights: `python make_model.py DIR TOKENIZER.json [PRESET]`.

Presets are those of `bench/peers/model.py`; 150m if none is given.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
from model import build, save_for_tokenformer

directory, tokenizer = sys.argv[1:3]
preset = sys.argv[3] if len(sys.argv) > 3 else "150m"
save_for_tokenformer(build(preset), preset, directory)
shutil.copyfile(tokenizer, Path(directory) / "tokenizer.json")
