// Draws a figure, and redraws it at every move of its sliders from values that Python computed before. plotly.js keeps the figure, so a zoom survives.
const explorers = new WeakMap();
const PLAY = 160;  // milliseconds between two steps of a playing slider
const REPORT = 150;  // milliseconds of rest after which Python is told
const NARROW = 620;  // pixels

const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function merged(base, patch) {
  const out = { ...base };
  for (const [name, value] of Object.entries(patch)) out[name] = plain(value) && plain(out[name]) ? merged(out[name], value) : value;
  return out;
}

const ARRAYS = { f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };

function decoded(value) {  // arrays travel as bytes; plotly would read them again at every move
  if (value === null || typeof value !== "object") return value;
  if (!ARRAYS[value.dtype] || value.shape) {
    for (const name of Object.keys(value)) value[name] = decoded(value[name]);
    return value;
  }
  const letters = atob(value.bdata), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return new ARRAYS[value.dtype](bytes.buffer);
}

function frameOf(slider) {  // what the slider's present value changes; decoded when it is first needed
  slider.read ??= new Set();
  const frame = slider.given.frames[slider.at];
  if (!slider.read.has(frame)) slider.read.add(decoded(frame));
  return frame;
}

function pictureOf(state) {  // what stands in the figure at the present values
  const traces = state.figure.data.map((trace) => ({ ...trace }));
  const layout = { ...state.figure.layout };
  for (const slider of state.sliders) {  // the one that moved last comes last: its values are the newest
    const frame = frameOf(slider);
    for (const [index, changed] of Object.entries(frame.traces)) Object.assign(traces[index], changed);
    Object.assign(layout, frame.layout);
  }
  return { traces, layout };
}

function isHidden(state) {  // whether nothing can be drawn now; what was drawn before counts as old then
  const hidden = !state.Plotly || !state.figure || !state.plot.isConnected || !state.plot.clientWidth;
  if (hidden && state.drawn) state.drawn.width = 0;
  return hidden;
}

function redraw(state, slider) {  // after a move: only what has changed, where that can be drawn by itself
  const { plot, drawn } = state;
  if (isHidden(state)) return Promise.resolve();
  const picture = pictureOf(state);
  if (drawn?.by !== slider || drawn.width !== plot.clientWidth || state.busy) return draw(state);
  const setRanges = (ranges) => {
    state.busy = true;
    state.Plotly.relayout(plot, ranges);  // it has drawn when it returns
    state.busy = false;
  };
  if (!quickRedraw(plot, drawn, picture, frameOf(slider), setRanges)) return draw(state);
  Object.assign(drawn, picture);
  state.quick = true;
  plot.data = picture.traces;
  plot.dataset.moves = String(Number(plot.dataset.moves ?? 0) + 1);
  return Promise.resolve();
}

function settle(state) {  // plotly takes over what was drawn while the hand moved
  if (state.quick) draw(state);
}

function draw(state) {
  const { plot, Plotly } = state;
  if (isHidden(state)) return Promise.resolve();
  const narrow = plot.clientWidth < NARROW;
  const picture = pictureOf(state);
  state.drawn = { ...picture, by: state.sliders.at(-1), width: plot.clientWidth };
  state.quick = false;
  const theme = state.data.themes[state.dark ? "dark" : "light"];
  const traces = inTheme(picture.traces, theme.meta);
  let layout = inTheme(structuredClone(picture.layout), theme.meta);
  if (narrow) layout = merged(layout, state.data.narrow);
  layout.template = { layout: structuredClone(theme) };  // plotly changes what it gets
  Object.assign(layout, { width: plot.clientWidth, uirevision: state.revision });
  if (narrow) layout.dragmode = false;  // a finger scrolls the page
  plot.style.minHeight = `${layout.height ?? 450}px`;
  state.busy = true;
  const drawn = Plotly.react(plot, traces, layout, { displayModeBar: false, doubleClick: false }).then(() => { state.busy = false; });
  listen(state);
  plot.dataset.draws = String(Number(plot.dataset.draws ?? 0) + 1);
  return drawn;
}

function listen(state) {
  if (state.listening) return;
  state.listening = true;
  state.plot.on("plotly_relayout", (change) => {
    if (!state.busy && Object.keys(change).some((name) => /axis\d*\.range/.test(name))) state.reset.hidden = false;
  });
  state.plot.on("plotly_doubleclick", () => state.reset.onclick());
}

function show(slider) {  // the slider's own text: value, and what is so at this value
  const { given, input } = slider;
  input.value = String(slider.at);
  input.setAttribute("aria-valuetext", given.texts[slider.at]);
  input.style.setProperty("--at", String(slider.at / Math.max(1, given.texts.length - 1)));
  slider.value.textContent = given.texts[slider.at];
  for (const [at, button] of slider.presets) button.setAttribute("aria-pressed", String(at === slider.at));
}

function say(state, slider) {
  const words = slider ? slider.given.says[slider.at] : state.data.says;
  state.says.textContent = words;
  state.says.hidden = !words;
}

function move(state, slider, at) {
  slider.at = Math.max(0, Math.min(slider.given.texts.length - 1, at));
  state.sliders = [...state.sliders.filter((other) => other !== slider), slider];
  show(slider);
  say(state, slider);
  return redraw(state, slider);
}

function report(state) {
  clearTimeout(state.timer);
  state.timer = setTimeout(() => {
    state.timer = undefined;
    settle(state);
    state.setStateValue("values", Object.fromEntries(state.sliders.map(({ given, at }) => [given.name, given.values[at]])));
  }, REPORT);
}

function stop(slider) {
  clearInterval(slider.playing);
  slider.playing = undefined;
  slider.play.textContent = "Play";
}

function play(state, slider) {
  if (slider.playing) { stop(slider); report(state); return; }
  slider.play.textContent = "Pause";
  const last = slider.given.texts.length - 1;
  if (slider.at === last) move(state, slider, 0);
  slider.playing = setInterval(() => {
    if (!state.root.isConnected) return stop(slider);
    move(state, slider, slider.at + 1);
    if (slider.at === last) { stop(slider); report(state); }
  }, PLAY);
}

function build(state, given) {
  const root = element(state.controls, "div", "lab-slider");
  const head = element(root, "div", "lab-slider-head");
  const name = element(head, "label", "", given.label);
  const slider = { root, value: element(head, "output", ""), presets: new Map(), given, at: given.at };
  slider.play = element(head, "button", "lab-play", "Play");
  slider.play.type = "button";
  slider.play.setAttribute("aria-label", `Play or pause: ${given.label}`);
  slider.play.onclick = () => play(state, slider);
  const input = slider.input = element(root, "input", "");
  Object.assign(input, { type: "range", min: "0", max: String(given.texts.length - 1), step: "1", id: `lab-${state.data.key}-${given.name}` });
  name.htmlFor = input.id;
  input.oninput = () => {
    if (slider.playing) stop(slider);
    slider.dragged = true;
    move(state, slider, Number(input.value));
  };
  input.onpointerup = () => { slider.dragged = false; };
  input.onchange = () => { slider.dragged = false; report(state); };
  const marks = element(root, "div", "lab-presets");
  for (const at of given.presets) {
    const button = element(marks, "button", "", given.texts[at]);
    button.type = "button";
    button.style.setProperty("--at", String(at / Math.max(1, given.texts.length - 1)));
    button.setAttribute("aria-label", `${given.label}: ${given.texts[at]}`);
    button.onclick = () => { move(state, slider, at); report(state); };
    slider.presets.set(at, button);
  }
  return slider;
}

function controls(state) {  // takes over what Python says, but never the slider out of a hand
  const names = state.data.sliders.map((s) => [s.name, s.label, s.texts, s.presets]);
  if (JSON.stringify(names) !== state.names) {
    state.names = JSON.stringify(names);
    for (const slider of state.sliders) if (slider.playing) stop(slider);
    state.controls.replaceChildren();
    state.sliders = state.data.sliders.map((given) => build(state, given));
  }
  for (const slider of state.sliders) {
    slider.given = state.data.sliders.find((given) => given.name === slider.given.name);
    if (!slider.dragged && !slider.playing && !state.timer) slider.at = slider.given.at;
    slider.play.hidden = !slider.given.play;
    show(slider);
  }
  const held = state.sliders.find((slider) => slider.at !== slider.given.at);
  say(state, held);
}

function make(parentElement) {
  parentElement.querySelector(".lab-explorer")?.remove();
  const root = element(parentElement, "div", "lab-explorer");
  const state = { root, controls: element(root, "div", "lab-controls"), plot: element(root, "div", "lab-figure"),
                  reset: element(root, "button", "lab-whole", "Whole figure"), says: element(root, "p", "lab-says"), sliders: [], revision: 1 };
  state.plot.setAttribute("role", "img");
  state.says.setAttribute("aria-live", "polite");
  state.reset.type = "button";
  state.reset.hidden = true;
  state.reset.onclick = () => { state.reset.hidden = true; state.revision += 1; draw(state); };
  state.dark = isDark(root);
  state.unwatch = watch(root, parentElement, () => {
    const dark = isDark(root);
    if (dark === state.dark && (!state.seen || state.drawn?.width === state.plot.clientWidth)) return;  // Streamlit marks its elements at every run
    if (dark !== state.dark) state.setStateValue("dark", dark);  // the page runs again, for what Python draws in the theme's colours
    state.dark = dark;
    if (state.seen) draw(state);
  });
  return state;
}

export default function ({ data: [data], parentElement, setStateValue }) {
  let state = explorers.get(parentElement);
  if (!state) explorers.set(parentElement, state = make(parentElement));
  state.setStateValue = setStateValue;
  const text = JSON.stringify(data);
  if (text !== state.text) {
    const { figure, sliders } = JSON.parse(data.drawing);
    decoded(figure);
    Object.assign(state, { text, figure, data: { ...data, sliders: data.sliders.map((given, index) => ({ ...given, ...sliders[index] })) } });
    controls(state);
    state.plot.setAttribute("aria-label", data.alt);  // also while it is not drawn
    state.plot.style.minHeight ||= `${figure.layout.height ?? 450}px`;
    load(data.plotly).then((Plotly) => {
      state.Plotly = Plotly;
      if (state.seen) return draw(state);
      return state.first ??= new Promise((drawn) => whenSeen(state.plot, () => { state.seen = true; drawn(draw(state)); }));
    })
        .catch((error) => { state.plot.className = "lab-problem"; state.plot.textContent = `The figure cannot be drawn: ${error.message}.`; });
  }
  return () => {
    if (parentElement.isConnected) return;
    state.unwatch();
    for (const slider of state.sliders) stop(slider);
    if (state.Plotly) state.Plotly.purge(state.plot);
    explorers.delete(parentElement);
  };
}
