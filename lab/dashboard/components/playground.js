// The playground: a recorded run plays in the browser; a moved slider forks it into a live run, which the feed brings.
const plays = new WeakMap();
const PLAY_MS = 12000;  // the whole recorded run
const FRAME_MS = 80;  // between two pictures: a curve grows by less than three pixels
const PANELS = ["accuracy", "reward", "kl", "length"];
const LIMITS = "One seed of a small model on one task: a run shows what a setting can do, not which setting is best. "
  + "Held-out numbers come from 64 prompts; a share of 64 is uncertain by up to 0.12. The recorded runs come from "
  + "python -m lab experiment playground --device cpu.";
const SHOWS = "This server is read-only, so a slider cannot start a live run here. On your own computer it can.";
const SVG = "http://www.w3.org/2000/svg";

function svg(parent, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function fold(parent, title) {  // one of the folds at the foot is open at a time
  const made = element(parent, "details", "", "");
  made.name = "lab-foot";
  element(made, "summary", "", title);
  return made;
}

function build(state, root) {  // what stays for all runs; the rest is filled by `show`
  element(root, "h1", "", "What does one setting do to a whole run?");
  state.status = element(root, "p", "lab-status", "");
  state.status.setAttribute("role", "status");
  const side = element(root, "section", "lab-side", "");
  side.setAttribute("aria-label", "Controls");
  const bar = element(side, "div", "lab-bar", "");
  state.play = element(bar, "button", "lab-go", "");
  state.play.onclick = () => toggle(state);
  state.again = element(bar, "button", "", "↺");
  state.again.setAttribute("aria-label", "Back to the recorded run, from its start");
  state.again.title = "Back to the recorded run, from its start";
  state.again.onclick = () => restart(state);
  state.count = element(bar, "output", "", "");
  state.methods = element(side, "fieldset", "lab-methods", "");
  element(state.methods, "legend", "", "Method");
  state.knobs = element(side, "div", "lab-knobs", "");
  const row = element(side, "div", "lab-bar", "");
  const label = element(row, "label", "", "");
  state.full = element(label, "input", "");
  state.full.type = "checkbox";
  state.full.onchange = () => knobs(state);
  label.append(" full range");
  state.undo = element(row, "button", "", "Undo");
  state.undo.onclick = () => undo(state);
  const charts = element(root, "section", "lab-charts", "");
  charts.setAttribute("aria-label", "Curves");
  state.panels = Object.fromEntries(PANELS.map((name) => {
    const box = element(charts, "figure", "", "");
    const caption = element(box, "figcaption", "", "");
    const panel = { title: element(caption, "b", "", ""), value: element(caption, "span", "lab-value", ""), holder: element(box, "div", "lab-holder", "") };
    panel.svg = svg(panel.holder, "svg", { role: "img", "data-panel": name });
    return [name, panel];
  }));
  charts.onpointermove = (event) => hover(state, event);
  charts.onpointerleave = () => { state.pointer = undefined; curves(state); };
  const right = element(root, "section", "lab-side-right", "");
  right.setAttribute("aria-label", "Completions of eight held-out prompts");
  state.chips = element(right, "ol", "lab-chips", "");
  const foot = element(root, "div", "lab-foot", "");
  element(fold(foot, "What this cannot show"), "p", "", LIMITS);
  const words = element(fold(foot, "Words on this page"), "ul", "", "");
  for (const [word, meaning] of Object.entries(state.data.words)) {
    const item = element(words, "li", "", "");
    element(item, "b", "", word);
    item.append(`: ${meaning.replaceAll("`", "")}`);
  }
}

const method = (state) => state.data.methods[state.name];
const isLive = (state) => Boolean(state.feed);
const isActive = (state) => Boolean(state.feed?.active || state.feed?.waiting || state.forking);
const wished = (state, knob) => state.wanted[knob] ?? state.feed?.settings[knob] ?? state.values[knob] ?? method(state).knobs[knob].default;
const isStill = (state) => state.still || isLive(state) || Boolean(state.data.live);
const nearest = (points, step) => points.reduce((best, point) => (Math.abs(point - step) < Math.abs(best - step) ? point : best));

function say(state, text) {
  if (state.status.textContent !== text) state.status.textContent = text;
}

function describe(state) {  // the sentence over everything: what runs, and what a move of a slider does
  const { name, end, points } = method(state);
  const { feed } = state;
  if (state.problem) return say(state, state.problem);
  if (state.forking) return say(state, `Fork into a live run: ${name} goes on from update ${state.forking.step} with ${state.forking.text} …`);
  if (!feed) {
    const from = nearest(points, Math.round(state.at));
    return say(state, state.data.refusal ? `A recorded ${name} run. ${SHOWS}` : state.held
      ? `Release to fork into a live run: ${name} goes on from update ${from} with ${state.held}.`
      : `A recorded ${name} run. Move a slider to fork it: a live run goes on from here with your value.`);
  }
  if (feed.problem) return say(state, feed.problem);
  if (feed.state === "queued") return say(state, `The live run waits for a free core (${feed.others} ${feed.others === 1 ? "run trains" : "runs train"} now).`);
  if (feed.waiting || feed.step <= (feed.marks[0]?.[0] ?? -1)) return say(state, `Live: ${name} loads the checkpoint of update ${feed.marks[0]?.[0] ?? 0} and goes on from there.`);
  const last = feed.marks.at(-1);
  const what = last ? `since ${last[1]} at update ${last[0]}` : "";
  say(state, feed.active ? `Live: ${name} trains on this computer, ${what}. Dashed: ${dashed(state, last)}.`
    : `The live run has ${feed.state}, ${what}. ${feed.twin?.waiting ? "The twin without the change waits for a core." : feed.twin?.active ? "The twin without the change trains now." : "Move a slider to fork again; ↺ brings the recorded run back."}`);
}

function dashed(state, last) {
  const { twin, marks } = state.feed;
  if (twin && twin.step > last[0]) return "the twin, which goes on without the change";
  return marks.length > 1 ? "the recorded run, until the same run without the change has caught up" : "the recorded run without the change";
}

function knobs(state) {  // a slider for each knob; one that a method lacks stays, without effect
  const { knobs: own } = method(state);
  const signature = JSON.stringify([state.name, state.full.checked]);
  if (signature !== state.knobSignature) {
    state.knobSignature = signature;
    state.knobs.replaceChildren();
    state.sliders = {};
    for (const [knob, label] of [["beta", "β"], ["group_size", "G"], ["learning_rate", "learning rate"]]) slider(state, knob, label, own[knob]);
  }
  for (const [knob, parts] of Object.entries(state.sliders)) {
    if (state.dragged === knob) continue;
    const value = wished(state, knob);
    parts.input.value = String(parts.values.indexOf(nearest(parts.values, value)));
    named(parts, value, knob in state.wanted);
  }
  state.undo.disabled = !state.feed?.marks.length || Boolean(state.forking);
}

function slider(state, knob, label, range) {
  const box = element(state.knobs, "div", "lab-knob", "");
  const name = element(box, "label", "", "");
  element(name, "b", "", label);
  const said = element(name, "span", "", "");
  const input = element(box, "input", "");
  Object.assign(input, { type: "range", min: "0", step: "1", id: `lab-play-${knob}` });
  name.htmlFor = input.id;
  const ticks = element(box, "div", "lab-ticks", "");
  ticks.setAttribute("aria-hidden", "true");
  if (!range) {
    said.textContent = `${state.data.methods[state.name].name} has no groups`;
    Object.assign(input, { max: "2", value: "1", disabled: true });
    return;
  }
  const values = state.full.checked ? [...new Set([...range.all, ...range.near])].sort((a, b) => a - b) : range.near;
  input.max = String(values.length - 1);
  const parts = { input, said, values, range, label };
  state.sliders[knob] = parts;
  for (const tick of new Set([...range.ticks, range.default])) {
    const mark = element(ticks, "span", tick === range.default ? "lab-default" : "", numberText(tick));
    mark.style.setProperty("--at", String(values.indexOf(tick) / (values.length - 1)));
  }
  input.oninput = () => drag(state, knob, values[Number(input.value)]);
  input.onkeydown = () => { state.keyed = true; };
  input.onpointerdown = () => { state.keyed = false; };
  input.onchange = () => {  // keys repeat: the last of them counts
    clearTimeout(state.resting);
    state.resting = setTimeout(() => settle(state, knob, values[Number(input.value)]), state.keyed ? 350 : 0);
  };
}

function named(parts, value, pending) {
  const text = numberText(value);
  const standard = value === parts.range.default ? "default" : `default ${numberText(parts.range.default)}`;
  parts.said.textContent = `${text} · ${pending ? "sent" : standard}`;
  parts.input.setAttribute("aria-valuetext", `${text}, ${standard}`);
}

function drag(state, knob, value) {  // the slider moves, and nothing is sent yet
  state.problem = "";
  if (state.data.refusal) return;
  state.dragged = knob;
  halt(state);
  named(state.sliders[knob], value, false);
  state.held = `${state.sliders[knob].label} ${numberText(value)}`;
  describe(state);
}

function settle(state, knob, value) {
  state.dragged = state.held = undefined;
  const before = wished(state, knob);
  if (!state.data.refusal && value !== before) change(state, knob, value);
  show(state);
}

function change(state, knob, value) {
  if (isActive(state)) {
    state.wanted[knob] = value;
    flush(state);
    return;
  }
  const own = method(state);
  const at = isLive(state) ? state.feed.step : Math.round(state.at);
  const settings = { ...state.values, ...(state.feed?.settings ?? {}), [knob]: value };
  const changes = Object.fromEntries(Object.entries(own.knobs).filter(([name, range]) => name in settings && settings[name] !== range.default).map(([name]) => [name, settings[name]]));
  const step = nearest(own.points, at);
  const text = Object.entries(changes).map(([name, v]) => `${own.knobs[name].label} ${numberText(v)}`).join(", ") || "its defaults";
  state.values = settings;
  state.forking = { step, text, after: state.feed?.run };
  send(state, { action: "fork", method: state.name, step, changes });
}

function flush(state) {  // sends what the live run does not have yet, when it can read it
  if (!state.feed?.active || state.forking) return;
  for (const [knob, value] of Object.entries(state.wanted)) {
    if (state.feed.settings[knob] === value) { delete state.wanted[knob]; delete state.sent[knob]; }
    else if (state.sent[knob] !== value) {
      state.sent[knob] = value;
      return send(state, { action: "set", knob, value });  // one a turn: a later command would replace this one
    }
  }
}

function send(state, command) {
  state.root.dataset.commands = String(Number(state.root.dataset.commands ?? 0) + 1);
  state.setTriggerValue("command", { ...command, id: `${Date.now()}` });
}

function undo(state) {  // takes the last move back: the run goes on from where it was made
  const last = state.feed?.marks.at(-1);
  if (last) goBack(state, last[0]);
}

function goBack(state, step) {  // to the state before the changes that were made at `step` or later
  if (state.data.refusal) return;
  const first = state.feed.marks[0][0];
  if (step <= first) return leave(state, Math.min(step, method(state).end));
  state.forking = { step, text: "what it had before", after: state.feed.run };
  Object.assign(state, { wanted: {}, sent: {} });
  send(state, { action: "undo", before: step });
  show(state);
}

function leave(state, at) {  // back to the recorded run; the live one ends and stays in the list of runs
  if (isLive(state) || state.forking || state.data.live) send(state, { action: "leave" });
  state.left = state.feed?.run ?? true;
  Object.assign(state, { feed: undefined, forking: undefined, values: {}, wanted: {}, sent: {}, problem: "", at });
  show(state);
}

function restart(state) {
  leave(state, 0);
  go(state);
}

function toggle(state) {
  if (isLive(state)) {
    if (state.feed.active) send(state, { action: state.feed.state === "paused" ? "continue" : "pause" });
    return;
  }
  if (state.playing) halt(state);
  else { if (state.at >= method(state).end) state.at = 0; go(state); }
  show(state);
}

function go(state) {
  halt(state);
  let last = performance.now();
  const tick = (now) => {
    if (!state.root.isConnected) return halt(state);
    if (now - last < FRAME_MS) { state.playing = requestAnimationFrame(tick); return; }
    const { end } = method(state);
    state.at = Math.min(end, state.at + (end * (now - last)) / PLAY_MS);
    last = now;
    if (state.at >= end) { state.playing = undefined; return show(state); }
    state.playing = requestAnimationFrame(tick);
    curves(state);
    chips(state);
  };
  state.playing = requestAnimationFrame(tick);
  buttons(state);
}

function halt(state) {
  cancelAnimationFrame(state.playing);
  state.playing = undefined;
  if (state.play) buttons(state);
}

function buttons(state) {
  const paused = isLive(state) ? !state.feed.active || state.feed.state === "paused" : !state.playing;
  if (state.play.dataset.paused !== String(paused)) {
    state.play.dataset.paused = String(paused);
    state.play.replaceChildren();
    const icon = svg(state.play, "svg", { viewBox: "0 0 16 16", width: 18, height: 18, "aria-hidden": "true" });
    svg(icon, "path", { fill: "currentColor", d: paused ? "M4 2v12l10-6z" : "M3 2h4v12H3zM9 2h4v12H9z" });
  }
  state.play.setAttribute("aria-label", isLive(state) ? (paused ? "Continue the live run" : "Pause the live run") : paused ? "Play the recorded run" : "Pause the recorded run");
  state.play.disabled = isLive(state) && !state.feed.active;
}

function methods(state) {
  if (state.methods.childElementCount > 1) {
    for (const input of state.methods.querySelectorAll("input")) input.checked = input.value === state.name;
    return;
  }
  for (const [name, own] of Object.entries(state.data.methods)) {
    const label = element(state.methods, "label", "", "");
    label.style.setProperty("--method", own.colour);
    const input = element(label, "input", "");
    Object.assign(input, { type: "radio", name: "lab-play-method", value: name, checked: name === state.name });
    element(label, "span", "", own.name);
    input.onchange = () => {
      state.name = name;
      leave(state, state.still ? method(state).end : 0);
      state.setStateValue("method", name);
      show(state);
      if (!state.still) go(state);
    };
  }
}

function show(state) {
  const { root } = state;
  root.dataset.mode = isLive(state) ? "live" : state.forking ? "forking" : "recorded";
  root.dataset.theme = isDark(root) ? "dark" : "light";
  root.style.setProperty("--method", method(state).colour);
  methods(state);
  knobs(state);
  buttons(state);
  describe(state);
  curves(state);
  chips(state);
}

function receive(state) {  // a new moment of the live run
  const feed = window.labPlaygroundFeed;
  if (!feed || feed.run !== state.data.live || feed.run === state.left || feed.run === state.forking?.after) return;
  halt(state);
  const first = state.feed?.run !== feed.run;
  Object.assign(state, { feed, name: feed.method, forking: undefined });
  if (first) state.sent = {};
  flush(state);
  show(state);
}

function fit(state) {  // the playground fills what the window leaves, so that nothing scrolls
  const top = state.root.getBoundingClientRect().top + (document.querySelector("[data-testid=stMain]")?.scrollTop ?? 0);
  state.root.style.height = `${Math.max(480, window.innerHeight - top - 4)}px`;
  curves(state);
}

export default function ({ data: [data], parentElement, setTriggerValue, setStateValue }) {
  let state = plays.get(parentElement);
  if (!state) {
    parentElement.querySelector(".lab-play")?.remove();
    const root = element(parentElement, "div", "lab-play");
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    state = { root, data, name: data.method, still, at: 0, values: {}, wanted: {}, sent: {}, problem: "" };
    plays.set(parentElement, state);
    build(state, root);
    state.at = still ? method(state).end : 0;
    const unwatch = watch(root, parentElement, () => { fit(state); show(state); });
    const resized = () => fit(state), fed = () => receive(state);
    window.addEventListener("resize", resized);
    window.addEventListener("lab-playground-feed", fed);
    state.end = () => { unwatch(); halt(state); window.removeEventListener("resize", resized); window.removeEventListener("lab-playground-feed", fed); };
    state.fresh = true;
  }
  Object.assign(state, { data, setTriggerValue, setStateValue });
  if (data.problem) Object.assign(state, { problem: data.problem, forking: undefined });
  if (!data.live && !state.forking) state.feed = undefined;
  receive(state);
  fit(state);
  show(state);
  if (state.fresh && !isStill(state)) go(state);
  state.fresh = false;
  return () => {
    if (parentElement.isConnected) return;
    state.end();
    plays.delete(parentElement);
  };
}

