"""The official `openai` client against our server, unchanged; and the curl lines of docs/serve.md with curl itself.

    python openai_client.py path/to/tokenformer MODEL_DIR

What it gets with a seed is compared with `tokenformer generate`, byte by byte.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import openai

from server import server

DOCS = Path(__file__).parents[2] / "docs" / "serve.md"


def generated(binary, model, prompt, seed, tokens):
    flags = ["--model", model, "--prompt", prompt, "--seed", str(seed), "--tokens", str(tokens)]
    run = subprocess.run([binary, "generate", *flags, "--temperature", "0.9", "--top-p", "0.9"], capture_output=True, check=True)
    return run.stdout.decode()


def main():
    binary, model = sys.argv[1:]
    checks = 0

    def check(what, holds):
        nonlocal checks
        if not holds:
            raise SystemExit(f"failed: {what}")
        checks += 1

    with server(binary, "--model", f"m={model}") as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        check("models", [m.id for m in client.models.list()] == ["m"])
        ask = {"model": "m", "prompt": "Once", "max_tokens": 24, "temperature": 0.9, "top_p": 0.9, "seed": 3}
        whole = client.completions.create(**ask)
        check("the text of generate", "Once" + whole.choices[0].text + "\n" == generated(binary, model, "Once", 3, 24))
        parts = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.text for part in parts for c in part.choices)
        check("the stream is the same text", text == whole.choices[0].text)
        check("usage of the stream", parts[-1].usage.total_tokens == whole.usage.total_tokens)
        scored = client.completions.create(**{**ask, "max_tokens": 2}, logprobs=3, echo=True).choices[0].logprobs
        check("logprobs", scored.token_logprobs[0] is None and len(scored.tokens) == len(scored.top_logprobs))
        several = client.completions.create(model="m", prompt=["a", "b"], n=2, max_tokens=3, extra_body={"top_k": 5, "stage": 1})
        check("several", [c.index for c in several.choices] == [0, 1, 2, 3])
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        chat = {"model": "m", "messages": messages, "max_completion_tokens": 8, "seed": 1, "logprobs": True, "top_logprobs": 2}
        answer = client.chat.completions.create(**chat).choices[0]
        check("chat", answer.message.role == "assistant" and len(answer.logprobs.content[0].top_logprobs) == 2)
        parts = client.chat.completions.create(**chat, stream=True)
        text = "".join(c.delta.content or "" for part in parts for c in part.choices)
        check("the stream of a chat", text == answer.message.content)
        for wrong, kind in [({"temperature": -1}, openai.BadRequestError), ({"model": "x"}, openai.NotFoundError)]:
            try:
                client.completions.create(**{**ask, **wrong})
                check(f"{wrong} is refused", False)
            except kind as error:
                check("the error has advice", bool(error.body["help"]))
        for line in DOCS.read_text().splitlines():
            if line.startswith("curl "):
                words = shlex.split(line.replace("http://127.0.0.1:8080", address))
                run = subprocess.run([words[0], "-sf", *words[1:]], capture_output=True, text=True)
                check(line, run.returncode == 0 and run.stdout)
    print(json.dumps({"openai": openai.__version__, "checks": checks}))


if __name__ == "__main__":
    main()
