// A pair on the loss curve. Dragging moves it between its recorded places; every number belongs to one of them.
const pairs = new WeakMap();
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 230, LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 36;  // pixels
const REPORT = 200;  // milliseconds of rest after which the address follows

const total = (values) => values.reduce((sum, value) => sum + value, 0);

function svg(parent, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function scales(state) {
  const { margins, losses } = state.data.curves[state.beta];
  const width = state.svg.clientWidth, [low, high] = [margins[0], margins.at(-1)];
  const most = Math.max(...losses);
  return { width, low, high, most, x: (h) => LEFT + (h - low) / (high - low) * (width - LEFT - RIGHT), y: (loss) => TOP + (1 - loss / most) * (HEIGHT - TOP - BOTTOM) };
}

function draw(state) {  // the curve and every recorded place of the pair
  const { data, pair, beta } = state, curve = data.curves[beta], places = data.places[beta][pair];
  state.svg.replaceChildren();
  if (!state.svg.clientWidth) return;
  const at = scales(state);
  svg(state.svg, "line", { x1: LEFT, x2: at.width - RIGHT, y1: at.y(0), y2: at.y(0), class: "lab-axis" });
  for (let h = Math.ceil(at.low / 10) * 10; h <= at.high; h += 10) svg(state.svg, "text", { x: at.x(h), y: HEIGHT - 18, "text-anchor": "middle", class: "lab-tick" }, String(h).replace("-", "−"));
  for (const loss of [0, 0.5, 1].filter((tick) => tick <= at.most)) svg(state.svg, "text", { x: LEFT - 8, y: at.y(loss) + 4, "text-anchor": "end", class: "lab-tick" }, String(loss));
  svg(state.svg, "text", { x: (LEFT + at.width - RIGHT) / 2, y: HEIGHT - 2, "text-anchor": "middle", class: "lab-tick" }, "margin h, nats");
  svg(state.svg, "text", { x: 12, y: TOP + (HEIGHT - TOP - BOTTOM) / 2, "text-anchor": "middle", class: "lab-tick", transform: `rotate(-90 12 ${TOP + (HEIGHT - TOP - BOTTOM) / 2})` }, "DPO loss");
  svg(state.svg, "polyline", { points: curve.margins.map((h, i) => `${at.x(h)},${at.y(curve.losses[i])}`).join(" "), class: "lab-curve" });
  for (const [h, loss] of places) svg(state.svg, "circle", { cx: at.x(h), cy: at.y(loss), r: 3.5, class: "lab-place" });
  state.handle = svg(state.svg, "circle", { r: 10, class: "lab-handle-pair" });
  move(state, state.at);
}

function move(state, at) {
  const { data, pair, beta } = state, steps = data.steps;
  state.at = Math.max(0, Math.min(steps.length - 1, at));
  const [h, loss, push] = data.places[beta][pair][state.at], scale = scales(state);
  if (state.handle) { state.handle.setAttribute("cx", scale.x(h)); state.handle.setAttribute("cy", scale.y(loss)); }
  state.slider.value = String(state.at);
  state.slider.setAttribute("aria-valuetext", `update ${steps[state.at]}`);
  state.update.textContent = `update ${steps[state.at]}`;
  const sums = {};
  for (const side of ["chosen", "rejected"]) {
    const ratios = data.pairs[pair][side].ratios[state.at];
    sums[side] = total(ratios);
    state.sides[side].sum.textContent = `${signedNumber(sums[side])} nats`;
    state.sides[side].spans.forEach((span, i) => colour(span, ratios[i], data.limit));
  }
  const minus = sums.rejected < 0 ? `${signedNumber(sums.chosen)} − (${signedNumber(sums.rejected)})` : `${signedNumber(sums.chosen)} − ${sums.rejected.toFixed(2)}`;
  state.says.textContent = `After ${steps[state.at]} updates: h = ${minus} = ${signedNumber(h)} nats. At β = ${beta} the loss is ${loss.toFixed(3)} and the push ${push.toPrecision(2)} per nat.`
    + (sums.chosen < -0.05 && h > 0.05 ? " The chosen text itself has become less likely; the rejected one fell further." : "");
  name(state);
}

function colour(span, ratio, limit) {
  const share = Math.min(1, Math.abs(ratio) / limit);
  span.style.setProperty("--share", String(share));
  span.className = `lab-token ${share < 0.03 ? "lab-same" : ratio > 0 ? "lab-more" : "lab-less"}`;
}

function name(state) {  // the numbers of the token under the pointer or the arrow keys
  const { side, index } = state.token, { tokens, ratios } = state.data.pairs[state.pair][side];
  state.token.index = Math.max(0, Math.min(tokens.length - 1, index));
  for (const one of ["chosen", "rejected"]) state.sides[one].spans.forEach((span, i) => span.classList.toggle("lab-picked", one === side && i === state.token.index));
  state.one.textContent = `${side}, token ${state.token.index + 1} “${tokens[state.token.index]}”: log π − log π_ref = ${signedNumber(ratios[state.at][state.token.index])} nats`;
}

function texts(state) {
  const pair = state.data.pairs[state.pair];
  for (const side of ["chosen", "rejected"]) {
    const { line, title } = state.sides[side];
    title.textContent = `${side}: `;
    line.replaceChildren();
    line.setAttribute("aria-label", `${side}: ${pair[side].tokens.join("")}`);
    state.sides[side].spans = pair[side].tokens.map((text, index) => {
      const span = element(line, "span", "lab-token", text);
      span.onpointerenter = () => { state.token = { side, index }; name(state); };
      line.append(document.createElement("wbr"));
      return span;
    });
  }
  state.token = { side: "chosen", index: 0 };
  draw(state);
}

function report(state) {
  clearTimeout(state.timer);
  state.timer = setTimeout(() => {
    state.timer = undefined;
    state.setStateValue("place", { pair: state.pair + 1, update: state.data.steps[state.at], beta: Number(state.beta) });
  }, REPORT);
}

function drag(state, event) {  // to the recorded place whose margin is nearest; of equal ones to the next in time
  const scale = scales(state), x = event.clientX - state.svg.getBoundingClientRect().left;
  const far = state.data.places[state.beta][state.pair].map(([h], i) => [Math.abs(scale.x(h) - x), Math.abs(i - state.at), i]);
  far.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  move(state, far[0][2]);
  report(state);
}

function build(parentElement) {
  parentElement.querySelector(".lab-pair")?.remove();
  const root = element(parentElement, "section", "lab-pair", "");
  root.setAttribute("aria-label", "One pair on the loss curve");
  const state = { root, token: { side: "chosen", index: 0 } };
  const bar = element(root, "div", "lab-pair-bar", "");
  const pick = element(bar, "label", "", "Pair ");
  state.select = element(pick, "select", "");
  state.select.onchange = () => { state.pair = Number(state.select.value); texts(state); report(state); };
  state.betas = element(bar, "fieldset", "", "");
  element(state.betas, "legend", "", "β");
  const time = element(bar, "label", "lab-pair-time", "");
  state.update = element(time, "output", "");
  state.slider = element(time, "input", "");
  Object.assign(state.slider, { type: "range", min: "0", step: "1", id: "lab-pair-update" });
  state.slider.setAttribute("aria-label", "Update of the recorded run");
  state.slider.oninput = () => { move(state, Number(state.slider.value)); report(state); };
  state.svg = svg(root, "svg", { class: "lab-pair-curve", role: "img", height: HEIGHT });
  state.svg.onpointerdown = (event) => { state.dragged = true; state.svg.setPointerCapture(event.pointerId); drag(state, event); };
  state.svg.onpointermove = (event) => { if (state.dragged) drag(state, event); };
  state.svg.onpointerup = state.svg.onpointercancel = () => { state.dragged = false; };
  state.sides = {};
  for (const side of ["chosen", "rejected"]) {
    const row = element(root, "div", "lab-pair-side", "");
    const title = element(row, "b", "", ""), sum = element(row, "span", "lab-sum", "");
    const line = element(row, "div", "lab-token-line", "");
    line.tabIndex = 0;
    line.setAttribute("role", "group");
    line.onkeydown = (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      state.token = { side, index: (state.token.side === side ? state.token.index : -by) + by };
      name(state);
    };
    line.onfocus = () => { if (state.token.side !== side) { state.token = { side, index: 0 }; name(state); } };
    state.sides[side] = { title, sum, line, spans: [] };
  }
  state.one = element(root, "p", "lab-pair-token", "");
  state.says = element(root, "p", "lab-pair-says", "");
  state.says.setAttribute("aria-live", "polite");
  state.unwatch = watch(root, parentElement, () => { if (state.data) draw(state); });
  return state;
}

function receive(state, data) {
  state.data = data;
  state.slider.max = String(data.steps.length - 1);
  state.select.replaceChildren();
  data.pairs.forEach((pair, at) => { const option = element(state.select, "option", "", `${at + 1}: ${pair.prompt}`); option.value = String(at); });
  for (const label of state.betas.querySelectorAll("label")) label.remove();
  for (const beta of Object.keys(data.curves).sort((a, b) => a - b)) {
    const label = element(state.betas, "label", "", ""), input = element(label, "input", "");
    Object.assign(input, { type: "radio", name: "lab-pair-beta", value: beta, checked: beta === String(data.place.beta) });
    input.onchange = () => { state.beta = beta; draw(state); report(state); };
    label.append(beta);
  }
  state.beta = String(data.place.beta);
  state.pair = data.place.pair - 1;
  state.select.value = String(state.pair);
  state.at = data.steps.indexOf(data.place.update);
  state.svg.setAttribute("aria-label", data.alt);
  texts(state);
}

export default function ({ data: [data], parentElement, setStateValue }) {
  let state = pairs.get(parentElement);
  if (!state) pairs.set(parentElement, state = build(parentElement));
  state.setStateValue = setStateValue;
  const { place, ...rest } = data, text = JSON.stringify(rest);
  if (text !== state.text) {  // what the visitor has moved stays; the server only repeats it
    state.text = text;
    receive(state, data);
  }
  return () => { if (!parentElement.isConnected) { state.unwatch(); pairs.delete(parentElement); } };
}
