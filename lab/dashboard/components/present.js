// Present mode: one figure of the page fills the screen, everything else of the page is hidden. Figures stay where they stand in the
// page, so they keep their state: the shown one is fixed on the screen and scaled, which enlarges its type as well.
const presents = new WeakMap();
const FIGURES = ".lab-explorer, .lab-live, div.lab-play, [data-lab-figure], .stImage, [data-testid=stEChartsChart], .stEChartsChart";
const YOU_SAID = /^You said[^.:]*[.:]\s*/;  // the page speaks to one visitor, the screen to the room
const SIDE = { wide: 0.2, least: 190, most: 380 };  // pixels of the column beside the figure
const LEAST_WIDTH = 600;  // pixels of a figure before it is scaled: a narrower one has the layout for phones
const LEAST_SCALE = 0.75;  // a figure that would be smaller scrolls
const MAX_FITS = 20;  // of one figure in one window
const PLAYGROUND = { wide: [1000, 600], narrow: [370, 740] };  // pixels that it needs

const holderOf = (figure) => figure.closest(".stElementContainer, .element-container") ?? figure;
const isTyping = (node) => node.matches?.("textarea, select, [contenteditable=true], input:not([type=range]):not([type=radio]):not([type=checkbox])");

function figuresOf() {  // in the order of the page, each once
  const all = [...document.querySelectorAll(FIGURES)].filter((figure) => figure.getClientRects().length && !figure.parentElement.closest(FIGURES));
  return [...new Set(all.map(holderOf))];
}

function stage(state) {  // the part of the screen for the figure
  const narrow = innerWidth < 700;
  const side = narrow ? 0 : Math.min(SIDE.most, Math.max(SIDE.least, SIDE.wide * innerWidth));
  state.over.style.setProperty("--side", `${side}px`);
  state.over.classList.toggle("lab-narrow", narrow);
  const top = state.title.getBoundingClientRect().bottom + 8;
  const bottom = narrow ? state.side.getBoundingClientRect().top : innerHeight;
  return { narrow, left: 16, top, width: innerWidth - side - 32, height: Math.max(160, bottom - top - 12) };
}

function fit(state) {  // the largest type at which the whole figure stands on the screen
  const { shown } = state;
  if (!shown?.isConnected) return;
  const box = stage(state);
  const limits = [LEAST_SCALE, Math.max(1, box.width / LEAST_WIDTH)];
  const least = PLAYGROUND[box.narrow ? "narrow" : "wide"];
  const wished = shown.querySelector("div.lab-play") ? Math.min(box.width / least[0], box.height / least[1])
    : Math.min(limits[1], box.height / Math.max(shown.scrollHeight, 80));
  const scale = Math.max(limits[0], wished);
  const changed = Math.abs(scale - (state.scale ?? 0)) > 0.02;
  if (changed && state.fits < MAX_FITS) Object.assign(state, { scale, fits: state.fits + 1 });  // a figure of another width may have another height
  const { style } = shown, height = box.height / state.scale;
  shown.dataset.labPresented = wished < limits[0] ? "long" : "whole";
  style.setProperty("--lab-present-height", `${height}px`);
  style.setProperty("--lab-present-width", `${box.width / state.scale}px`);
  style.setProperty("--lab-present-scale", String(state.scale));
  style.setProperty("--lab-present-left", `${box.left}px`);
  style.setProperty("--lab-present-top", `${box.top + Math.max(0, (height - shown.offsetHeight) * state.scale / 2)}px`);
}

function fitSoon(state) {  // after the figure has been drawn for its present width
  state.fitting ??= setTimeout(() => { state.fitting = undefined; fit(state); }, 100);
}

function stepper(state) {  // what the arrows left and right change: the figure's first slider, the playground's method
  const ranges = state.shown?.querySelectorAll("div.lab-play input[type=radio]").length
    ? [] : [...(state.shown?.querySelectorAll("input[type=range]:not(:disabled)") ?? [])];
  const [range] = ranges.filter((input) => input.getClientRects().length);
  if (range) {
    const label = range.labels?.[0]?.textContent || range.getAttribute("aria-label") || "value";
    return { name: label.split(",")[0], move: (by) => {
      const before = range.value;
      if (by > 0) range.stepUp(); else range.stepDown();
      if (range.value === before) return;
      for (const kind of ["input", "change"]) range.dispatchEvent(new Event(kind, { bubbles: true }));
    } };
  }
  const radios = [...(state.shown?.querySelectorAll("div.lab-play input[type=radio]") ?? [])];
  if (radios.length) return { name: "method", move: (by) => radios[(radios.findIndex((input) => input.checked) + by + radios.length) % radios.length].click() };
  return undefined;
}

function put(state, holder) {
  if (state.shown === holder) return;
  if (state.shown) {
    delete state.shown.dataset.labPresented;
    state.sized?.disconnect();
  }
  Object.assign(state, { shown: holder, fits: 0, scale: undefined });
  if (holder) {
    state.sized = new ResizeObserver(() => fitSoon(state));
    state.sized.observe(holder);
    fit(state);
  }
}

function turn(state, by) {  // to another figure of the page
  const figures = figuresOf();
  if (!figures.length) return;
  const at = Math.max(0, Math.min(figures.length - 1, figures.indexOf(state.shown) + by));
  put(state, figures[at]);
  hints(state);
  state.setStateValue("figure", at + 1);
}

function hints(state) {
  const figures = figuresOf(), step = stepper(state);
  const parts = [];
  if (step) parts.push(`← → ${step.name}`);
  if (figures.length > 1) parts.push(`${step ? "↑ ↓" : "← → ↑ ↓"} figure ${figures.indexOf(state.shown) + 1} of ${figures.length}`);
  parts.push("Esc leaves");
  const text = parts.join(" · ");
  if (state.keys.textContent !== text) state.keys.textContent = text;
  for (const button of [state.before, state.after]) button.hidden = figures.length < 2;
  const heading = document.querySelector("[data-testid=stMain] h1")?.textContent ?? "";
  const title = state.shown?.contains(document.querySelector("[data-testid=stMain] h1")) ? "" : heading;
  if (state.title.textContent !== title) state.title.textContent = title;
}

function pressed(state, event) {
  if (!state.root.isConnected) return end(state);
  if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
  if (event.key === "Escape") { event.preventDefault(); return leave(state); }
  if (isTyping(event.target)) return;
  const onSlider = event.target.matches?.("input[type=range]");
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, PageDown: 1, PageUp: -1 }[event.key];
  if (!by || (onSlider && /Left|Right/.test(event.key))) return;  // a slider in the hand moves itself
  event.preventDefault();
  const step = /Left|Right/.test(event.key) ? stepper(state) : undefined;
  if (step) step.move(by);
  else turn(state, by);
}

function send(state, action) {
  state.root.dataset.sent = action;
  state.setTriggerValue("command", { action, id: `${Date.now()}` });
}

function leave(state) {
  close(state);
  send(state, "leave");
}

function svgNode(parent, tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  return made;
}

function code(state, { size, path }, address) {  // dark on light in both themes, with the free edge of four modules that readers need
  if (state.codeOf === path) return;
  state.codeOf = path;
  state.code.replaceChildren();
  const image = svgNode(state.code, "svg", { viewBox: `-4 -4 ${size + 8} ${size + 8}`, role: "img", "aria-label": `QR code: ${address}`, "shape-rendering": "crispEdges" });
  svgNode(image, "rect", { x: -4, y: -4, width: size + 8, height: size + 8, fill: "#FFFFFF" });
  svgNode(image, "path", { d: path, fill: "#000000" });
}

function ballot(state, data) {  // the question of the page and the votes of the room, veiled until the presenter reveals them
  const text = JSON.stringify(data ?? null);
  if (text === state.ballotText) return;
  state.ballotText = text;
  state.ballot.hidden = !data;
  state.side.classList.toggle("lab-revealed", Boolean(data?.counts));
  state.ballot.replaceChildren();
  state.verdict = undefined;
  if (!data) return;
  element(state.ballot, "h2", "", data.question);
  const list = element(state.ballot, "ul", data.counts ? "" : "lab-veiled");
  const most = Math.max(1, ...(data.counts ?? [1]));
  data.options.forEach((option, i) => {
    const item = element(list, "li", "");
    element(item, "span", "", option);
    element(item, "b", "", data.counts ? String(data.counts[i]) : "?");
    const bar = element(item, "i", "");
    bar.style.setProperty("--share", String(data.counts ? data.counts[i] / most : 0));
  });
  const said = element(state.ballot, "p", "lab-total", `${data.total} ${data.total === 1 ? "vote" : "votes"}${data.counts ? "" : " so far"}`);
  said.setAttribute("role", "status");
  if (data.counts && data.total) {
    const most = data.counts.indexOf(Math.max(...data.counts));
    state.verdict = element(state.ballot, "p", "lab-present-verdict", `Most votes: ${data.options[most]}.`);
    state.verdict.dataset.most = state.verdict.textContent;
  }
  if (!data.mine) return;
  const button = element(state.ballot, "button", "", data.counts ? "Vote again" : "Reveal");
  button.type = "button";
  button.onclick = () => send(state, data.counts ? "again" : "reveal");
}

function build(state) {
  const over = state.over = element(state.root, "div", "lab-present");
  over.setAttribute("role", "region");
  over.setAttribute("aria-label", "Present mode");
  state.title = element(over, "h2", "lab-present-title");
  const side = state.side = element(over, "div", "lab-present-side");
  state.code = element(side, "div", "lab-present-code");
  const texts = element(side, "div", "lab-present-texts");
  state.address = element(texts, "p", "lab-present-address");
  state.hint = element(texts, "p", "lab-present-hint");
  state.ballot = element(side, "section", "lab-present-ballot");
  state.ballot.setAttribute("aria-label", "Votes of the room");
  const foot = element(side, "div", "lab-present-foot");
  const row = element(foot, "div", "lab-present-row");
  const button = (text, label, action) => {
    const made = element(row, "button", "", text);
    made.type = "button";
    made.setAttribute("aria-label", label);
    made.onclick = action;
    return made;
  };
  state.before = button("‹", "Previous figure", () => turn(state, -1));
  state.after = button("›", "Next figure", () => turn(state, 1));
  button("Leave", "Leave present mode", () => leave(state));
  state.keys = element(foot, "p", "lab-present-keys");
}

function open(state) {
  if (!state.over) {
    build(state);
    state.listening = [["keydown", (event) => pressed(state, event), true], ["resize", () => { state.fits = 0; fit(state); }, false]];
    for (const [kind, react, capture] of state.listening) window.addEventListener(kind, react, capture);
    document.body.dataset.labPresent = "true";
    document.activeElement?.blur();
  }
  const { data } = state;
  code(state, data.qr, data.address);
  const { host, pathname } = new URL(data.address);
  state.address.textContent = `${host}${pathname}?room=${data.room}`;  // short enough to be typed
  state.hint.textContent = data.hint;
  ballot(state, data.ballot);
  look(state);
}

function close(state) {
  put(state, undefined);
  for (const [kind, react, capture] of state.listening ?? []) window.removeEventListener(kind, react, capture);
  state.over?.remove();
  Object.assign(state, { over: undefined, listening: undefined, codeOf: undefined, ballotText: undefined, left: true });
  if (!document.querySelector(".lab-present")) delete document.body.dataset.labPresent;  // Streamlit may have mounted another one before this one goes
}

function end(state) {  // its place on the page is gone; another one may have been mounted
  close(state);
  for (const timer of [state.soon, state.fitting]) clearTimeout(timer);
  state.changes.disconnect();
}

function look(state) {  // the page may draw its figures later, or again
  const figures = figuresOf();
  state.link.hidden = Boolean(state.over) || !figures.length;
  if (!state.over) return;
  if (!figures.includes(state.shown)) put(state, figures[Math.min(figures.length, Math.max(1, Number(state.data.figure) || 1)) - 1]);
  hints(state);
  if (state.verdict) {  // the page judges the answer of most; it may come later than the votes
    const said = document.querySelector("[data-testid=stMain] .st-key-verdict")?.textContent ?? "";
    const text = `${state.verdict.dataset.most} ${said.replace(YOU_SAID, "")}`;
    if (state.verdict.textContent !== text) state.verdict.textContent = text;
  }
  fit(state);
}

function mount(parentElement) {
  parentElement.querySelector(".lab-present-root")?.remove();
  const root = element(parentElement, "div", "lab-present-root");
  const state = { root, link: element(root, "button", "lab-present-link", "Present") };
  state.link.type = "button";
  state.link.title = "Show one figure on the whole screen";
  state.link.hidden = true;
  state.link.onclick = () => send(state, "present");
  state.changes = new MutationObserver(() => { state.soon ??= setTimeout(() => { state.soon = undefined; if (state.root.isConnected) look(state); else end(state); }, 150); });
  state.changes.observe(document.querySelector("[data-testid=stMain]") ?? document.body, { childList: true, subtree: true });
  return state;
}

export default function ({ data: [data], parentElement, setTriggerValue, setStateValue }) {
  let state = presents.get(parentElement);
  if (!state) presents.set(parentElement, state = mount(parentElement));
  Object.assign(state, { data, setTriggerValue, setStateValue });
  if (!data.presented) state.left = false;
  if (data.presented && !state.left) open(state);
  else if (state.over) close(state);
  look(state);
  if (!data.presented) state.left = false;
  return () => {
    if (parentElement.isConnected) return;
    end(state);
    presents.delete(parentElement);
  };
}
