"""The page in a real browser, through Playwright.

    pip install playwright && playwright install chromium     # or CHROMIUM=/usr/bin/chromium
    python page.py path/to/tokenformer MODEL_DIR SHOTS_DIR

MODEL_DIR is a grown model with a norm per segment. Streaming, colours, alternatives by pointer and by keyboard, branching, two
stages side by side, texts of another stage, without a beginning and longer than the context, the structure, the training of another process with a growth, the width of a phone, light and dark; no
message on the console, and no request to another host.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from server import server


DOCS = Path(__file__).parents[2] / "docs"
# The demo has learnt to write Rust.
PROMPT = "/// Returns the number of"
STEPS = 800
RECIPE = f"""
[data]
dir = "data"
[model]
preset = "nano"
norm = "segment"
width = 32
layers = 2
heads = 2
context = 32
slots = {{ qkv = 16, proj = 16, ffn = 48 }}
[train]
steps = {STEPS}
batch = 4
[schedule]
lr = 3e-3
[sample]
every = 100
prompt = "The"
[log]
every = 1
[[grow]]
at_step = 150
qkv = "+16"
proj = "+16"
ffn = "+48"
"""


def prepare(binary, folder):
    """Everything that a small run needs, in `folder`; returns the command that trains it."""
    flags = ["--tokenizer", "bytes", "--input", DOCS, "--out", folder / "data"]
    subprocess.run([binary, "data", "prepare", *flags], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "run").mkdir()
    return [Path(binary).resolve(), "train", "--config", "recipe.toml", "--out", "run", "--threads", "1"]


def others(page, sent):
    """Texts that go on after a change: another stage, another pane, no beginning, and more tokens than the context."""
    panes, box = page.locator(".pane"), page.get_by_label("Text to continue")
    both, more = page.get_by_label("Side by side"), page.get_by_role("button", name="Write on")
    settings = {label: page.get_by_label(label).input_value() for label in ["Tokens", "Temperature"]}

    def done():
        expect(page.get_by_role("button", name="Continue")).to_be_enabled(timeout=60_000)
        expect(page.locator("#error")).to_be_hidden()

    def bodies(path):
        found = [body for to, body in sent if to == path]
        sent.clear()
        return found

    def wrote(pane, index):
        """What is sent to learn which parameter tokens wrote a token."""
        sent.clear()
        with page.expect_request("**/api/fired") as asked:
            panes.nth(pane).locator(".token").nth(index).hover()
        expect(page.locator(".fired tr").first).to_be_visible()
        return asked.value.post_data_json

    # A pane with another stage begins anew, and the other goes on.
    page.get_by_label("Tokens", exact=True).fill("6")
    count = panes.nth(0).locator(".token").count()
    panes.nth(1).locator("select").select_option("2 m")
    expect(panes.nth(1).locator(".token")).to_have_count(0)
    sent.clear()
    more.click()
    done()
    assert panes.nth(0).locator(".token").count() > count
    assert panes.nth(1).locator(".token").count() > 0
    assert [body["prompt"] for to, body in sent if to == "/tokenize"] == [PROMPT]
    lengths = {len(body["prompt"]): body["stage"] for body in bodies("/v1/completions")}
    assert len(lengths) == 2 and set(lengths.values()) == {2}, lengths
    panes.nth(1).locator("select").select_option("1 m")

    # A pane that comes later begins with the text of the first.
    both.uncheck()
    expect(panes).to_have_count(1)
    page.get_by_role("button", name="Continue").click()
    done()
    both.check()
    more.click()
    done()
    assert all(panes.nth(i).locator(".token").count() > 0 for i in range(2))
    both.uncheck()

    # No beginning at all: the text follows the end of a document, also when it goes on.
    box.fill("")
    sent.clear()
    page.get_by_role("button", name="Continue").click()
    done()
    start = bodies("/v1/completions")[0]["prompt"]
    assert len(start) == 1, start
    assert wrote(0, 0)["tokens"] == start
    sent.clear()
    more.click()
    done()
    assert bodies("/v1/completions")[0]["prompt"][:1] == start

    # A long text: what a token was written from is what its request was sent.
    context = page.evaluate("fetch('/v1/models').then((answer) => answer.json()).then((list) => list.data[0].max_model_len)")
    box.fill(f"{PROMPT} " * context)
    page.get_by_label("Tokens", exact=True).fill("20")
    sent.clear()
    page.get_by_role("button", name="Continue").click()
    done()
    prompt = bodies("/v1/completions")[0]["prompt"]
    assert len(prompt) == context - min(20, context // 2), (len(prompt), context)
    assert wrote(0, 0)["tokens"] == prompt
    fourth = wrote(0, 3)["tokens"]
    assert fourth[: len(prompt)] == prompt and len(fourth) == len(prompt) + 3

    # As it was before.
    both.check()
    box.fill(PROMPT)
    for label, value in settings.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Continue").click()
    done()


def main():
    binary, model, shots = sys.argv[1:]
    shots = Path(shots)
    shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        train = prepare(binary, Path(folder))
        with server(binary, "--model", f"m={model}", "--run", f"{folder}/run") as (address, _):
            browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            said, foreign = [], []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(address) else None)
            sent = []
            page.on("request", lambda request: sent.append((request.url.removeprefix(address), request.post_data_json)) if request.method == "POST" else None)
            page.goto(address)

            # Two stages side by side on one prompt, streamed.
            page.get_by_label("Side by side").check()
            panes = page.locator(".pane")
            expect(panes).to_have_count(2)
            chosen = [panes.nth(i).locator("select").input_value() for i in range(2)]
            assert chosen == ["2 m", "1 m"], chosen
            page.get_by_label("Text to continue").fill(PROMPT)
            page.get_by_label("Temperature").fill("0.4")
            page.get_by_label("Text to continue").press("Control+Enter")
            expect(panes.nth(0).locator(".token").first).to_be_visible()
            expect(page.get_by_role("button", name="Continue")).to_be_enabled(timeout=60_000)
            counts = [panes.nth(i).locator(".token").count() for i in range(2)]
            assert all(count > 5 for count in counts), counts
            colours = {panes.nth(0).locator(".token").nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(counts[0])}
            assert len(colours) > 1, colours

            # Alternatives by pointer, and what wrote the token.
            token = panes.nth(0).locator(".token").nth(3)
            token.hover()
            expect(page.locator("#alternatives button")).to_have_count(8)
            expect(page.locator(".fired tr").first).to_be_visible()
            page.screenshot(path=shots / "write.png", full_page=True)

            # By keyboard, and a branch from the second alternative.
            token.focus()
            page.keyboard.press("ArrowRight")
            assert panes.nth(0).locator(".token").nth(4).evaluate("e => e === document.activeElement")
            page.keyboard.press("ArrowLeft")
            before = panes.nth(0).locator(".token").nth(2).inner_text()
            other = page.locator("#alternatives button").nth(1)
            wanted = other.evaluate("e => e.firstChild.textContent")
            other.click()
            expect(page.get_by_role("button", name="Continue")).to_be_enabled(timeout=60_000)
            shown = panes.nth(0).locator(".token")
            visible = lambda text: text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
            assert shown.nth(2).inner_text() == before
            assert visible(shown.nth(3).evaluate("e => e.textContent")) == wanted
            assert shown.count() > 4

            others(page, sent)

            page.get_by_role("tab", name="Structure").click()
            expect(page.locator("#structure rect.s2").first).to_be_visible()
            page.screenshot(path=shots / "structure.png", full_page=True)

            page.get_by_role("tab", name="Run").click()
            training = subprocess.Popen(train, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            expect(page.locator("#run-growth li")).to_have_count(1, timeout=60_000)
            assert training.poll() is None, "the run was still going on"
            expect(page.locator("line.grow")).to_have_count(1)
            expect(page.locator("#run-samples blockquote").first).to_be_visible(timeout=60_000)
            assert training.wait(timeout=120) == 0
            expect(page.locator("#run-state")).to_contain_text(f"step {STEPS} of {STEPS}", timeout=20_000)
            expect(page.locator("#run-state")).to_contain_text("ended")
            page.screenshot(path=shots / "run.png", full_page=True)

            # A phone, in the dark.
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 390, "height": 844})
            for name in ["Write", "Structure", "Run"]:
                page.get_by_role("tab", name=name).click()
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= 390, (name, wide)
            page.get_by_role("tab", name="Write").click()
            page.screenshot(path=shots / "phone.png", full_page=True)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"
            browser.close()
            assert not said, said
            assert not foreign, foreign
    print("the page does what it should")


if __name__ == "__main__":
    main()
