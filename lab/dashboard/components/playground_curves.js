// The four curves and the eight completions of the playground.
const EDGE = { left: 34, right: 8, top: 6, bottom: 18 };
const NARROW_PANEL = 260;  // pixels
const HANDLE = 12;  // pixels beside a mark that take a click

function valueAt([steps, values], step) {  // the last value at or before a step
  let found;
  for (let i = 0; i < steps.length && steps[i] <= step; i += 1) if (values[i] !== null) found = values[i];
  return found;
}

function pointsUntil([steps, values], until) {  // the points up to a step, which may lie between two of them
  const points = [];
  for (let i = 0; i < steps.length; i += 1) {
    if (values[i] === null) continue;
    if (steps[i] > until) {
      const [x, y] = points.at(-1) ?? [steps[i], values[i]];
      const share = (until - x) / (steps[i] - x || 1);
      points.push([until, y + share * (values[i] - y)]);
      break;
    }
    points.push([steps[i], values[i]]);
  }
  return points;
}

function scaleOf(name, lines) {  // a range that does not jump while the recorded run plays
  if (name === "accuracy") return [0, 1];
  const values = lines.flatMap(([, values]) => values).filter((value) => value !== null);
  const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-6);
  return [low, high + 0.05 * (high - low)];
}

function tickText(value) {
  return (value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)))).replace(/^-/, "−");
}

function axisEnd({ feed }, own) {  // grows in few leaps, so that a mark stays under the pointer while a run trains
  let end = own.end;
  while (end < (feed?.step ?? 0)) end = Math.round(end * 1.5);
  return feed ? Math.min(end, Math.max(own.end, feed.total)) : end;
}

function curves(state) {
  const own = state.data.methods[state.name];
  const live = state.feed?.curves;
  const end = axisEnd(state, own);
  const now = live ? state.feed.step : state.at;
  state.count.textContent = `update ${Math.round(now)} of ${live ? state.feed.total : own.end}`;
  const text = ([steps]) => steps.length;
  const signature = JSON.stringify([state.name, live && Object.values(live).map(text), state.feed?.step, state.feed?.twin?.step, Math.round(state.at * 100), state.pointer, state.root.clientWidth, state.root.clientHeight, state.root.dataset.theme]);
  if (signature === state.curveSignature) return;
  state.curveSignature = signature;
  const reference = referenceOf(state, own);
  for (const name of PANELS) panel(state, name, own, live?.[name], end, now, reference);
}

function referenceOf(state, own) {  // the run without the last change: its twin where there is one, else the recorded run
  const { twin, marks } = state.feed ?? {};
  if (twin && twin.step > marks.at(-1)[0]) return { name: "twin", curves: twin.curves, end: twin.step, from: marks.at(-1)[0], sole: true };
  return { name: "recorded", curves: own.curves, end: own.end, from: marks?.[0]?.[0] ?? 0, sole: marks?.length === 1 };
}

function panel(state, name, own, live, end, now, reference) {
  const { svg: root, holder, title, value } = state.panels[name];
  const recorded = own.curves[name] ?? [[], []];
  const { title: heading, unit } = own.panels[name];
  const width = holder.clientWidth, height = holder.clientHeight;
  if (width < 60 || height < 24) return;
  const other = reference.curves[name] ?? [[], []];
  const [low, high] = scaleOf(name, live ? [recorded, live, other] : [recorded]);
  const x = (step) => EDGE.left + ((width - EDGE.left - EDGE.right) * step) / end;
  const y = (v) => height - EDGE.bottom - ((height - EDGE.top - EDGE.bottom) * (v - low)) / (high - low);
  const line = (points) => points.map(([s, v], i) => `${i ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const size = (v) => numberText(Math.abs(v) < 1e-4 * (high - low) ? 0 : Number(v.toPrecision(3))).replace(/^-/, "−");
  const shown = live ?? recorded, at = state.pointer ?? now;
  const current = valueAt(shown, at), plain = valueAt(other, at);
  title.textContent = heading;
  const beside = live && plain !== undefined && at <= reference.end ? ` (${width < NARROW_PANEL ? "" : `${reference.name} `}${size(plain)})` : "";
  value.textContent = current === undefined ? "" : `${size(current)}${beside && width < NARROW_PANEL ? "" : ` ${unit}`}${beside}`;
  value.title = beside ? `${size(current)} ${unit}; ${reference.name} ${size(plain)} ${unit}` : "";
  root.replaceChildren();
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("aria-label", `${heading}: ${shown[1].length ? `${numberText(shown[1].find((v) => v !== null) ?? 0)} at update ${shown[0][0]}` : "not measured"}, ${current === undefined ? "" : `${numberText(current)} ${unit} at update ${Math.round(at)}`}`);
  for (const v of [low, high]) {
    svg(root, "line", { class: "lab-grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(v), y2: y(v) });
    svg(root, "text", { class: "lab-tick", x: EDGE.left - 5, y: y(v) + (v === high ? 9 : 2), "text-anchor": "end" }, tickText(v));
  }
  svg(root, "text", { class: "lab-tick", x: EDGE.left, y: height - 4 }, "0");
  svg(root, "text", { class: "lab-tick", x: (EDGE.left + width - EDGE.right) / 2, y: height - 4, "text-anchor": "middle" }, "update");
  svg(root, "text", { class: "lab-tick", x: width - EDGE.right, y: height - 4, "text-anchor": "end" }, String(Math.round(end)));
  if (live) {
    gap(root, line, other, live, reference);
    svg(root, "path", { class: "lab-recorded", d: line(pointsUntil(other, reference.end)) });
  }
  const drawn = live ? pointsUntil(live, Infinity) : pointsUntil(recorded, now);
  svg(root, "path", { class: "lab-run", d: line(drawn) });
  for (const [step, label] of live ? state.feed.marks : []) {
    svg(root, "line", { class: "lab-mark", x1: x(step), x2: x(step), y1: EDGE.top, y2: height - EDGE.bottom });
    const handle = svg(root, "rect", { class: "lab-handle", x: x(step) - HANDLE / 2, y: EDGE.top, width: HANDLE, height: height - EDGE.top - EDGE.bottom });
    svg(handle, "title", {}, `Undo ${label}: back to update ${step}`);
  }
  const markAt = (event) => {
    const at = event.clientX - root.getBoundingClientRect().left;
    return (state.feed?.marks ?? []).findLast(([step]) => Math.abs(x(step) - at) <= HANDLE / 2)?.[0];
  };
  root.onpointerdown = (event) => { state.pressed = event.button === 0 ? markAt(event) : undefined; };
  root.onpointerup = (event) => {  // a click would be lost: a live run replaces what was pressed before it is released
    const step = markAt(event);
    if (step !== undefined && step === state.pressed) goBack(state, step);
    state.pressed = undefined;
  };
  if (live && state.feed.marks.length) {
    const [step, label] = state.feed.marks.at(-1);
    const said = reference.sole && state.feed.step > step ? `${label} did this` : label;
    const name = svg(root, "text", { class: "lab-mark-text", x: x(step) + 4, y: EDGE.top + 10 }, said);
    const room = width - EDGE.right - name.getComputedTextLength();
    if (x(step) + 4 > room) name.setAttribute("x", Math.max(EDGE.left, x(step) > width * 0.6 ? x(step) - 4 - name.getComputedTextLength() : room));
  }
  if (state.pointer !== undefined) svg(root, "line", { class: "lab-cursor", x1: x(at), x2: x(at), y1: EDGE.top, y2: height - EDGE.bottom });
  const tip = state.pointer === undefined ? drawn.at(-1) : current !== undefined && [at, current];
  if (tip) svg(root, "circle", { class: "lab-now", cx: x(tip[0]), cy: y(tip[1]), r: 3.5 });
  root.dataset.points = String(shown[0].filter((step) => step <= now).length);
}

function gap(root, line, other, live, { from }) {  // what lies between the run and the run without the change
  const until = Math.min(live[0].at(-1) ?? 0, other[0].at(-1) ?? 0);
  if (until <= from) return;
  const part = (curve) => pointsUntil(curve, until).filter(([step]) => step >= from);
  const there = part(live), back = part(other).reverse();
  if (there.length > 1 && back.length > 1) svg(root, "path", { class: "lab-gap", d: `${line([...there, ...back])}Z` });
}

function hover(state, event) {  // the pointer shows one update in all four curves
  const box = event.target.closest?.(".lab-holder")?.getBoundingClientRect();
  if (!box) return;
  const own = state.data.methods[state.name];
  const end = axisEnd(state, own);
  const share = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
  const latest = state.feed ? state.feed.step : state.at;
  state.pointer = Math.round(Math.max(0, Math.min(1, share)) * end);
  if (state.pointer > latest) state.pointer = Math.round(latest);
  curves(state);
}

function chips(state) {
  const own = state.data.methods[state.name];
  const until = state.feed ? state.feed.step : state.at;
  const recorded = own.samples.filter(([step]) => step <= until).at(-1) ?? own.samples[0];
  const texts = state.feed?.samples.length ? state.feed.samples : recorded[1];
  const signature = JSON.stringify([state.name, texts]);
  if (signature === state.chipSignature) return;
  state.chipSignature = signature;
  while (state.chips.childElementCount < own.prompts.length) chip(state.chips);
  own.prompts.forEach(([prompt, answer], i) => {
    const [text, right] = texts[i] ?? ["", false];
    const [, thought, rest] = /^(?:<think>(.*?)(?:<\/think>|$))?(.*)$/s.exec(text);
    const item = state.chips.children[i];
    item.className = right ? "lab-right" : "lab-wrong";
    item.title = `${prompt} ${text}`;
    const [mark, question, said, think] = item.querySelectorAll("[data-part]");
    mark.textContent = right ? "✓" : "✗";
    mark.setAttribute("aria-label", right ? "right" : "wrong");
    question.textContent = prompt;
    said.textContent = right ? rest : `${rest || "no answer"} ≠ ${answer}`;
    think.textContent = thought === undefined ? "" : `<think> ${thought}`;
    think.style.setProperty("--length", String(thought === undefined ? 0 : thought.length + 9));
  });
}

function chip(list) {
  const item = element(list, "li", "", "");
  const line = element(item, "div", "", "");
  for (const [part, tag] of [["mark", "span"], ["question", "code"], ["said", "b"]]) element(line, tag, "", "").dataset.part = part;
  item.querySelector("[data-part=mark]").setAttribute("role", "img");
  element(item, "div", "lab-think", "").dataset.part = "think";
}
