// The page: writing with models, and the picture of their structure. Everything that comes from outside is put into the
// page as text, never as markup.
import { showRun } from "./run.js";

export const by = (id) => document.getElementById(id);

/// An element with attributes and children.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/// The same within a picture.
export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function complain(error) {
  const box = by("error");
  box.hidden = !error;
  box.textContent = error ? String(error.message ?? error) : "";
}

/// Asks the server; its errors come as exceptions with their advice.
export async function ask(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const init = { headers, signal };
  if (body !== undefined) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, init);
  if (response.ok) return response;
  if (response.status === 401) by("key").hidden = false;
  const told = await response.json().catch(() => ({}));
  const { message, help } = told.error ?? { message: `the server answered ${response.status}` };
  throw new Error(help ? `${message}\n${help}` : message);
}

/// The messages of a stream, one after the other.
export async function* messages(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

const count = (n) => Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(n);
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
const stageClass = (stage) => `s${((stage - 1) % 6) + 1}`;

let models = [];
let running = null;
/// The token whose details are shown.
let shown = null;
let asking = null;

/// A text that is being written, with the model and stage that write it.
class Pane {
  constructor(choice) {
    this.select = make("select", { "aria-label": "Model and stage" });
    for (const model of models) {
      for (const { stage, params } of model.stages) {
        if (params === null) continue;
        const of = model.stages.length > 1 ? `, stage ${stage} of ${model.stages.length}` : "";
        const option = make("option", { value: `${stage} ${model.id}` }, `${model.id}${of}: ${count(params)} parameters`);
        this.select.append(option);
      }
    }
    this.select.selectedIndex = Math.max(0, Math.min(choice, this.select.options.length - 1));
    this.text = make("div", { class: "text", role: "group", "aria-label": "Continued text" });
    this.note = make("p", { class: "note" });
    this.root = make("section", { class: "pane" }, this.select, this.text, this.note);
    this.clear();
    // The tokens of one model mean nothing to another, and what a stage wrote is not what another would have.
    this.select.addEventListener("change", () => {
      this.clear();
      allow();
    });
  }

  /// Forgets the text, and stops writing it.
  clear() {
    this.own?.abort();
    this.own = new AbortController();
    if (shown?.pane === this) hideDetails();
    this.wish = null;
    this.before = [];
    this.tokens = [];
    this.lost = "";
    this.text.replaceChildren();
    this.note.textContent = "";
  }

  /// A signal of this text that ends with `signal` too.
  until(signal) {
    return AbortSignal.any([signal, this.own.signal]);
  }

  /// Begins with a text, for the model and stage that are chosen now.
  async begin(prompt, signal) {
    this.clear();
    const [stage, ...name] = this.select.value.split(" ");
    const model = models.find((m) => m.id === name.join(" "));
    const response = await ask("/tokenize", { model: model.id, prompt }, this.until(signal));
    const { tokens, prompt_losses } = await response.json();
    const { dropped = 0, unknown = 0 } = prompt_losses ?? {};
    this.lost = dropped + unknown ? `; the tokenizer lost ${dropped + unknown} characters of the text` : "";
    this.wish = { model, stage: Number(stage) };
    this.before = tokens.length > 0 ? tokens : [model.start_token];
    this.text.replaceChildren(make("span", { class: "before" }, prompt));
  }

  /// The prompt's tokens and the first `count` of the written ones, from number `from` on.
  tokensFrom(from, count) {
    return [...this.before, ...this.tokens.slice(0, count).map((token) => token.id)].slice(from);
  }

  async write(outer) {
    if (!this.wish) return;
    const started = performance.now();
    const signal = this.until(outer);
    const { model, stage } = this.wish;
    const most = Number(by("tokens").value);
    const context = model.max_model_len;
    const length = this.before.length + this.tokens.length;
    // A text that is longer than the context loses its beginning. Every token keeps where the prompt that it was written from
    // began, to show what wrote it.
    const from = length > context ? length - context + Math.min(most, Math.floor(context / 2)) : 0;
    const body = {
      model: model.id, stage, prompt: this.tokensFrom(from),
      max_tokens: most, temperature: Number(by("temperature").value),
      top_p: Number(by("top-p").value), seed: Number(by("seed").value), logprobs: 8, stream: true,
    };
    this.note.textContent = "…";
    let written = 0, end = "stopped";
    try {
      for await (const message of messages(await ask("/v1/completions", body, signal))) {
        if (message.error) throw new Error(`${message.error.message}\n${message.error.help}`);
        const choice = message.choices[0];
        if (!choice) continue;
        for (const token of taken(choice.logprobs)) {
          this.add({ ...token, from });
          written += 1;
        }
        if (choice.finish_reason) end = choice.finish_reason === "stop" ? "the text ended" : "as long as asked for";
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      // The whole time, because messages may arrive together: the time between them says nothing.
      const seconds = (performance.now() - started) / 1000;
      if (this.wish) this.note.textContent = `${written} tokens in ${seconds.toFixed(2)} s; ${end}${this.lost}`;
    }
  }

  add(token) {
    const probability = Math.exp(token.logprob);
    const span = make("span", { class: "token", tabindex: this.tokens.length ? "-1" : "0", title: percent(token.logprob) }, token.text);
    span.style.setProperty("--p", probability.toFixed(3));
    const index = this.tokens.length;
    const show = () => details(this, index);
    span.addEventListener("mouseenter", show);
    span.addEventListener("focus", show);
    span.addEventListener("click", () => span.focus());
    span.addEventListener("keydown", (event) => {
      const to = { ArrowRight: span.nextSibling, ArrowLeft: span.previousSibling }[event.key];
      if (to?.classList?.contains("token")) to.focus();
      if (event.key === "Enter") by("alternatives").firstChild?.focus();
    });
    this.tokens.push({ ...token, span, pane: this });
    this.text.append(span);
  }

  /// Goes on from another token at a place.
  branch(index, other) {
    for (const token of this.tokens.splice(index)) token.span.remove();
    this.add(other);
    work((signal) => this.write(signal));
  }
}

/// The tokens that a message brings.
function taken(logprobs) {
  if (!logprobs) return [];
  return logprobs.tokens.map((text, i) => ({
    text, id: logprobs.token_ids[i], logprob: logprobs.token_logprobs[i], alternatives: logprobs.alternatives[i],
  }));
}

let panes = [];

function layout() {
  const wanted = by("both").checked ? 2 : 1;
  const options = panes[0]?.select.options.length ?? 0;
  while (panes.length > wanted) {
    const pane = panes.pop();
    pane.clear();
    pane.root.remove();
  }
  while (panes.length < wanted) {
    // The first begins with the whole of the first model, the second with what comes before it in the list.
    const stages = models[0]?.stages.filter((stage) => stage.params !== null).length ?? 1;
    const pane = new Pane(panes.length === 0 ? stages - 1 : (panes[0].select.selectedIndex + options - 1) % options);
    panes.push(pane);
    by("panes").append(pane.root);
  }
  allow();
}

/// Lets what can be done now be asked for.
function allow() {
  by("stop").disabled = !running;
  by("go").disabled = Boolean(running);
  by("more").disabled = Boolean(running) || panes.every((pane) => pane.tokens.length === 0);
}

/// Runs work that Stop can end; only one thing is done at a time.
async function work(run) {
  running?.abort();
  const own = new AbortController();
  running = own;
  complain(null);
  allow();
  try {
    await run(own.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    // If one text failed, the others are still being written.
    own.abort();
    if (running === own) running = null;
    allow();
  }
}

/// The text that was last begun with.
let prompt = "";

const start = () => work(async (signal) => {
  prompt = by("prompt").value;
  await each((pane) => pane.begin(prompt, signal));
  await each((pane) => pane.write(signal));
});

/// Goes on with every text; those that have not begun, or whose model was changed, begin where the others did.
const writeOn = () => work(async (signal) => {
  await each((pane) => pane.wish ? null : pane.begin(prompt, signal));
  await each((pane) => pane.write(signal));
});

/// Does something for all texts at once. One that is cleared meanwhile does not stop the others.
function each(what) {
  const quiet = (error) => {
    if (error.name !== "AbortError") throw error;
  };
  return Promise.all(panes.map((pane) => Promise.resolve(what(pane)).catch(quiet)));
}

function hideDetails() {
  clearTimeout(asking);
  shown?.span.classList.remove("chosen");
  shown = null;
  by("details").hidden = true;
}

/// Shows the alternatives of a token, and after a moment which parameter tokens wrote it.
function details(pane, index) {
  const token = pane.tokens[index];
  if (!token || shown === token) return;
  shown?.span.classList.remove("chosen");
  shown = token;
  token.span.classList.add("chosen");
  by("details").hidden = false;
  by("details-title").textContent = `${visible(token.text)}, ${percent(token.logprob)}`;
  by("alternatives").replaceChildren(...(token.alternatives ?? []).map((other) => {
    const button = make("button", { type: "button" }, visible(other.text), make("small", {}, percent(other.logprob)));
    button.addEventListener("click", () => pane.branch(index, { ...other, alternatives: token.alternatives, from: token.from }));
    return button;
  }));
  by("fired").replaceChildren();
  clearTimeout(asking);
  asking = setTimeout(() => fired(pane, index, token), 250);
}

async function fired(pane, index, token) {
  try {
    const { model, stage } = pane.wish;
    const response = await ask("/api/fired", { model: model.id, stage, tokens: pane.tokensFrom(token.from, index) });
    const { sites } = await response.json();
    if (shown !== token || sites.length === 0) return;
    const table = make("table", { class: "fired" });
    table.append(make("caption", {}, "Parameter tokens that wrote it: shares of the stages, and the strongest"));
    for (const site of sites) {
      const picture = draw("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img" });
      let x = 0;
      site.stage_shares.forEach((share, i) => {
        picture.append(draw("rect", { x, y: 0, width: 100 * share, height: 8, class: stageClass(i + 1) }));
        x += 100 * share;
      });
      const words = site.stage_shares.map((share, i) => `stage ${i + 1} ${(100 * share).toFixed(0)} %`).join(", ");
      picture.setAttribute("aria-label", words);
      picture.append(draw("title", {}, words));
      const top = site.top.slice(0, 4).map((t) => `${t.token} (stage ${t.stage})`).join(", ");
      table.append(make("tr", {}, make("th", { scope: "row" }, `block ${site.block} ${site.site}`), make("td", {}, picture), make("td", {}, top)));
    }
    by("fired").replaceChildren(make("div", { class: "scroll" }, table));
  } catch (error) {
    complain(error);
  }
}

/// A picture of the sites of a model: a column for each block, a bar for each site, a part for each segment.
function structure(model) {
  const { blocks } = model.config;
  const kinds = ["query", "key", "value", "proj", "ffn"];
  const [left, width, row] = [60, Math.max(70, Math.min(140, 900 / blocks.length)), 26];
  const numbers = new Map(model.born.map((born, i) => [born, i + 1]));
  const parts = (layer) => {
    if (layer.segments) return layer.segments.map((s) => ({ tokens: s.tokens, stage: numbers.get(s.stage) }));
    if (layer.hidden) return [{ tokens: layer.hidden }, ...(layer.parts ?? []).map((p) => ({ tokens: p.hidden, stage: numbers.get(p.stage) }))];
    return [];
  };
  const total = (layer) => parts(layer).reduce((sum, part) => sum + part.tokens, 0);
  const most = Math.max(1, ...blocks.flatMap((block) => kinds.map((kind) => total(block[kind]))));
  const size = [left + width * blocks.length, row * kinds.length + 24];
  const picture = draw("svg", { width: size[0], height: size[1], role: "img", "aria-label": `structure of ${model.id}` });
  kinds.forEach((kind, y) => picture.append(draw("text", { x: 0, y: 24 + y * row + 14 }, kind)));
  blocks.forEach((block, b) => {
    picture.append(draw("text", { x: left + b * width, y: 12, class: "soft" }, `block ${b}`));
    kinds.forEach((kind, y) => {
      let x = left + b * width;
      const cell = { y: 24 + y * row, height: row - 8 };
      for (const part of parts(block[kind])) {
        const length = Math.max(2, (part.tokens / most) * (width - 10));
        const rect = draw("rect", { ...cell, x, width: length, class: part.stage ? stageClass(part.stage) : "plain" });
        rect.append(draw("title", {}, `block ${b} ${kind}: ${part.tokens} tokens${part.stage ? `, stage ${part.stage}` : ""}`));
        picture.append(rect);
        x += length + 1;
      }
      if (total(block[kind]) === 0) picture.append(draw("rect", { ...cell, x, width: width - 10, class: "plain" }));
    });
  });
  const key = make("ul", { class: "key" });
  for (const { stage, params } of model.stages) {
    const mark = draw("svg", { viewBox: "0 0 8 8" }, draw("rect", { width: 8, height: 8, class: stageClass(stage) }));
    const size = params === null ? "not computed by itself" : `${count(params)} parameters up to here`;
    key.append(make("li", {}, mark, `stage ${stage}: ${size}`));
  }
  const c = model.config;
  const words = `${count(model.params)} parameters, ${blocks.length} blocks of width ${c.width}, ${c.heads} heads, vocabulary ${c.vocab}, context ${c.context}`;
  return make("section", {}, make("h2", {}, model.id), make("p", { class: "hint" }, words), key, make("div", { class: "scroll" }, picture));
}

function choose(view) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const own = tab.getAttribute("aria-controls") === view;
    tab.setAttribute("aria-selected", own);
    by(tab.getAttribute("aria-controls")).hidden = !own;
  }
}

async function open() {
  const response = await ask("/api/structure");
  const told = await response.json();
  models = told.models;
  by("key").hidden = true;
  by("structure").replaceChildren(...models.map(structure));
  by("tab-run").hidden = !told.run;
  if (models.length > 0) layout();
  else by("tab-write").hidden = by("tab-structure").hidden = true;
  if (told.run) showRun();
  if (told.run && models.length === 0) choose("run");
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => choose(tab.getAttribute("aria-controls")));
}
by("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
by("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    start();
  }
});
by("more").addEventListener("click", writeOn);
by("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
by("both").addEventListener("change", layout);
by("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", by("key-text").value);
  complain(null);
  open().catch(complain);
});
open().catch(complain);
