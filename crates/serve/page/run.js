// A training run while it goes on.
import { ask, by, complain, draw, make, messages } from "./app.js";

const run = { steps: null, train: [], evals: [], grown: [], silent: null };

const duration = (seconds) => {
  if (!Number.isFinite(seconds)) return "unknown";
  const [h, m] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return h > 0 ? `${h} h ${m} min` : m > 0 ? `${m} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
};

function take(record) {
  if (record.kind === "train") run.train.push([record.step, record.loss, record.step_ms, record.params]);
  if (record.kind === "eval") run.evals.push([record.step, record.loss]);
  if (record.kind === "grow") {
    run.grown.push(record.step);
    const size = record.params_after ? `, ${record.params_before.toLocaleString("en")} to ${record.params_after.toLocaleString("en")} parameters` : "";
    by("run-growth").append(make("li", {}, `step ${record.step}${size}`));
  }
  if (record.kind === "sample") {
    by("run-samples").prepend(make("blockquote", {}, `${record.prompt ?? ""}${record.text ?? ""}`), make("p", { class: "hint" }, `step ${record.step}`));
    const texts = by("run-samples");
    while (texts.childElementCount > 20) texts.lastChild.remove();
  }
}

function state() {
  const [step, loss, ms, params] = run.train.at(-1) ?? [0, null, NaN, null];
  const parts = [run.steps ? `step ${step} of ${run.steps}` : `step ${step}`];
  if (loss !== null && loss !== undefined) parts.push(`loss ${loss.toFixed(4)}`);
  if (params) parts.push(`${params.toLocaleString("en")} parameters`);
  if (run.steps && step >= run.steps) parts.push("ended");
  else {
    if (run.steps && ms) parts.push(`about ${duration(((run.steps - step) * ms) / 1000)} to go`);
    if (run.silent > 30) parts.push(`nothing new for ${duration(run.silent)}`);
  }
  by("run-state").textContent = parts.join(", ");
}

/// At most `most` points, each the mean of its neighbours.
function thinned(points, most = 400) {
  const size = Math.max(1, Math.ceil(points.length / most));
  const out = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size).filter((p) => Number.isFinite(p[1]));
    if (part.length > 0) out.push([part.at(-1)[0], part.reduce((sum, p) => sum + p[1], 0) / part.length]);
  }
  return out;
}

function plot() {
  const [train, evals] = [thinned(run.train), thinned(run.evals)];
  const all = [...train, ...evals];
  if (all.length === 0) return;
  const [w, h, left, bottom] = [800, 300, 46, 24];
  const last = Math.max(run.steps ?? 0, ...all.map((p) => p[0]), 1);
  const [low, high] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  const x = (step) => left + (step / last) * (w - left - 10);
  const y = (loss) => 10 + ((high - loss) / Math.max(high - low, 1e-9)) * (h - bottom - 20);
  const line = (points) => points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
  const picture = draw("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "loss by step" });
  picture.append(draw("line", { class: "axis", x1: left, x2: w, y1: h - bottom, y2: h - bottom }));
  for (const loss of [low, (low + high) / 2, high]) picture.append(draw("text", { x: 0, y: y(loss) + 4 }, loss.toFixed(3)));
  for (const step of [0, Math.round(last / 2), last]) picture.append(draw("text", { x: Math.min(x(step), w - 40), y: h - 6 }, String(step)));
  for (const step of run.grown) picture.append(draw("line", { class: "grow", x1: x(step), x2: x(step), y1: 0, y2: h - bottom }, draw("title", {}, `grown at step ${step}`)));
  picture.append(draw("path", { class: "curve", d: line(train) }), draw("path", { class: "eval", d: line(evals) }));
  const names = "blue: training loss; orange: held-out loss; dashed: growth";
  by("run-plot").replaceChildren(picture, make("p", { class: "hint" }, names));
}

function begin() {
  Object.assign(run, { train: [], evals: [], grown: [] });
  by("run-growth").replaceChildren();
  by("run-samples").replaceChildren();
}

/// Follows the run, and begins again when the connection breaks.
export async function showRun() {
  for (;;) {
    try {
      begin();
      for await (const message of messages(await ask("/api/run"))) {
        if (message.kind === "run") {
          run.steps = message.steps;
          by("run-name").textContent = message.name;
        } else if (message.kind === "reset") begin();
        else if (message.kind === "records") {
          message.records.forEach(take);
          run.silent = 0;
          plot();
        } else run.silent = message.silent_s;
        state();
      }
    } catch (error) {
      complain(error);
    }
    by("run-state").textContent += " (connection lost, trying again)";
    await new Promise((resolve) => setTimeout(resolve, 3000));
  }
}
