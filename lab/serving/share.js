"use strict";
// Draws a recorded run and replays it. Every text of the run becomes a text node, never markup.
const run = JSON.parse(document.getElementById("data").textContent);
const PLAY_MS = 10000;  // the whole run
const EDGE = { left: 46, right: 10, top: 8, bottom: 22 };
const root = document.getElementById("run");
let at = run.step, playing, pointer;

function make(parent, tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function draw(parent, tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

const short = (value) => (Math.abs(value) >= 1e-3 || value === 0 ? String(Number(value.toPrecision(3))) : value.toExponential(1));

function ticksOf(panel) {  // two to five round numbers around all values; a share has the whole scale
  if (panel.share) return [0, 0.5, 1];
  const values = [panel.points, panel.line].filter(Boolean).flatMap(([, ys]) => ys).filter((y) => y !== null);
  let low = Math.min(...values), high = Math.max(...values);
  if (low > 0 && low < high / 2) low = 0;
  if (!(high > low)) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = power * [1, 2, 5, 10].find((factor) => (high - low) / (factor * power) <= 4);
  const first = Math.floor(low / step), last = Math.ceil(high / step);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function valueAt([xs, ys], step) {
  let value;
  for (let i = 0; i < xs.length && xs[i] <= step; i += 1) if (ys[i] !== null) value = ys[i];
  return value;
}

function pathOf([xs, ys], x, y, until) {  // a missing value is a gap in the line
  let path = "", open = false;
  for (let i = 0; i < xs.length && xs[i] <= until; i += 1) {
    if (ys[i] !== null) path += `${open ? "L" : "M"}${x(xs[i]).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
    open = ys[i] !== null;
  }
  return path;
}

function drawPanel({ panel, svg, output }) {
  const width = svg.clientWidth, height = svg.clientHeight;
  const ticks = ticksOf(panel), low = ticks[0], high = ticks.at(-1);
  const x = (step) => EDGE.left + ((width - EDGE.left - EDGE.right) * step) / (run.end || 1);
  const y = (value) => height - EDGE.bottom - ((height - EDGE.top - EDGE.bottom) * (value - low)) / (high - low);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const value of ticks) {
    draw(svg, "line", { class: value === low ? "edge" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) });
    draw(svg, "text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value));
  }
  for (const [step, anchor, text] of [[0, "start", "0"], [run.end / 2, "middle", "update"], [run.end, "end", String(run.end)]]) {
    draw(svg, "text", { x: x(step), y: height - 6, "text-anchor": anchor }, text);
  }
  let before = -Infinity, row = 0;
  for (const [step, text] of run.marks.filter(([step]) => step <= at)) {
    row = x(step) - before < 90 ? row + 1 : 0;
    before = x(step);
    const late = x(step) > width * 0.65;
    draw(svg, "line", { class: "mark", x1: x(step), x2: x(step), y1: EDGE.top, y2: height - EDGE.bottom });
    draw(svg, "text", { class: "mark-text", x: x(step) + (late ? -4 : 4), y: EDGE.top + 12 + 14 * (row % 4), "text-anchor": late ? "end" : "start" }, text);
  }
  if (panel.line) draw(svg, "path", { class: panel.points ? "run thin" : "run", d: pathOf(panel.line, x, y, at) });
  if (panel.points) {
    draw(svg, "path", { class: "run", d: pathOf(panel.points, x, y, at) });
    panel.points[0].forEach((step, i) => {
      if (step <= at && panel.points[1][i] !== null) draw(svg, "circle", { class: "dot", cx: x(step), cy: y(panel.points[1][i]), r: 3 });
    });
  }
  const shown = pointer === undefined ? at : Math.min(at, pointer);
  if (pointer !== undefined) draw(svg, "line", { class: "cursor", x1: x(shown), x2: x(shown), y1: EDGE.top, y2: height - EDGE.bottom });
  const value = valueAt(panel.points ?? panel.line, shown);
  output.textContent = value === undefined ? "–" : `${short(value)}${pointer === undefined ? "" : ` at ${shown}`}`;
  svg.setAttribute("aria-label", `${panel.title}, ${panel.unit}: ${output.textContent} at update ${shown} of ${run.steps}`);
}

function sample(list, row) {
  const item = make(list, "li");
  const verdict = row.right === true ? "✓ right" : row.right === false ? "✗ wrong" : row.reward === undefined ? "" : `r ${short(row.reward)}`;
  make(item, "b", "", verdict);
  const text = make(item, "code", "", "");
  make(text, "span", "prompt", row.prompt);
  text.append(` ${row.completion}`);
  if (row.right === false && row.answer) make(text, "span", "prompt", `   (right: ${row.answer})`);
  if (row.advantage !== undefined) make(text, "span", "prompt", `   A ${row.advantage >= 0 ? "+" : "−"}${short(Math.abs(row.advantage))}`);
}

function drawSamples() {
  for (const [place, holder] of samples.entries()) {
    const latest = run.samples.filter((row) => row[0] <= at && row[place + 1].length).at(-1);
    holder.section.hidden = !latest;
    if (!latest || holder.step === latest[0]) continue;
    holder.step = latest[0];
    holder.heading.textContent = `${place ? "Completions of the training group" : "Held-out prompts"}, update ${latest[0]}`;
    holder.list.replaceChildren();
    for (const row of latest[place + 1]) sample(holder.list, row);
  }
}

function show() {
  slider.value = String(Math.round(at));
  count.textContent = `update ${Math.round(at)} of ${run.steps}`;
  document.body.dataset.at = String(Math.round(at));
  panels.forEach(drawPanel);
  drawSamples();
}

function halt() {
  cancelAnimationFrame(playing);
  playing = undefined;
  button.textContent = "▶ Play";
}

function play() {
  if (playing) return halt();
  if (at >= run.step) at = 0;
  let last = performance.now();
  button.textContent = "⏸ Pause";
  const tick = (now) => {
    at = Math.min(run.step, at + (Math.max(run.step, 1) * (now - last)) / PLAY_MS);
    last = now;
    show();
    if (at >= run.step) halt();
    else playing = requestAnimationFrame(tick);
  };
  playing = requestAnimationFrame(tick);
}

const pairs = ([xs, ys]) => xs.map((x, i) => [x, ys[i]]);

function table() {
  const fold = make(root, "details");
  make(fold, "summary", "", "As a table");
  fold.ontoggle = () => {
    if (fold.childElementCount > 1) return;
    const columns = run.panels.map((panel) => new Map(pairs(panel.points ?? panel.line)));
    const rows = make(make(fold, "div", "scroll"), "table");
    const head = make(rows, "tr");
    make(head, "th", "", "update");
    for (const panel of run.panels) make(head, "th", "", panel.title);
    for (const step of [...new Set(columns.flatMap((column) => [...column.keys()]))].sort((a, b) => a - b)) {
      const row = make(rows, "tr");
      make(row, "td", "", String(step));
      for (const column of columns) make(row, "td", "", typeof column.get(step) === "number" ? short(column.get(step)) : "");
    }
  };
}

function section(part) {  // a part of a report: paragraphs, and rows of two or three texts
  const place = make(root, part.folded ? "details" : "section", "facts");
  if (part.title) make(place, part.folded ? "summary" : "h2", "", part.title);
  for (const text of part.texts ?? []) make(place, "p", "", text);
  if (!part.rows?.length) return;
  const rows = make(make(place, "div", "scroll"), "table");
  for (const [i, cells] of [...(part.head?.length ? [part.head] : []), ...part.rows].entries()) {
    const row = make(rows, "tr");
    for (const text of cells) make(row, i === 0 && part.head?.length ? "th" : "td", "", text);
  }
}

document.documentElement.style.setProperty("--method", run.colour);
make(root, "h1", "", run.title);
make(root, "p", "", `${run.method}, ${run.state}: ${run.step} of ${run.steps} updates. ${run.source}`);
for (const notice of run.notices) make(root, "p", "notice", notice);
for (const part of run.sections) if (part.top) section(part);
const bar = make(root, "div", "bar");
const button = make(bar, "button", "", "▶ Play");
button.onclick = play;
const slider = make(bar, "input");
Object.assign(slider, { type: "range", min: "0", max: String(run.step), step: "1" });
slider.setAttribute("aria-label", "Show the run up to this update");
slider.oninput = () => { halt(); at = Number(slider.value); show(); };
const count = make(bar, "output");
const charts = make(root, "section", "panels");
charts.setAttribute("aria-label", "Curves");
const panels = run.panels.map((panel) => {
  const figure = make(charts, "figure"), caption = make(figure, "figcaption");
  const title = make(caption, "b", "", panel.title);
  title.title = panel.meaning;
  make(caption, "span", "", panel.unit);
  const output = make(caption, "output");
  return { panel, output, svg: draw(figure, "svg", { role: "img" }) };
});
charts.onpointermove = (event) => {
  const box = event.target.closest?.("svg")?.getBoundingClientRect();
  if (!box) return;
  const share = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
  pointer = Math.round(Math.max(0, Math.min(1, share)) * run.end);
  if (!playing) show();
};
charts.onpointerleave = () => { pointer = undefined; if (!playing) show(); };
const texts = make(root, "div", "samples");
const samples = [0, 1].map(() => {
  const section = make(texts, "section");
  return { section, heading: make(section, "h2"), list: make(section, "ol") };
});
table();
for (const part of run.sections) if (!part.top) section(part);
make(root, "h2", "", "The same run on your computer");
make(make(root, "p"), "code", "", run.command);
make(root, "p", "", "Points: held-out prompts. Thin line: the batch of each update. Dotted lines: settings that were changed while the run trained.");
show();
addEventListener("resize", show);

