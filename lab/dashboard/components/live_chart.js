// Draws the curves that Python sends. plotly.js keeps the figure between ticks, so a zoom survives them.
const states = new WeakMap();

const DASHES = { solid: "", dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" };

const themeOf = (state) => state.data.themes[isDark(state.root) ? "dark" : "light"];

function swatch(run, colours) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 34);
  svg.setAttribute("height", 10);
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "line");
  const look = { x1: 0, x2: 34, y1: 5, y2: 5, stroke: colours[run.colour] ?? run.colour, "stroke-width": 3,
                 "stroke-dasharray": DASHES[run.dash] ?? run.dash.replaceAll("px", "") };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function legend(state) {
  const { runs, key } = state.data;
  const colours = themeOf(state).meta;
  const signature = JSON.stringify([runs.map((r) => [r.name, r.label, colours[r.colour] ?? r.colour, r.dash]), key, Boolean(state.zoom)]);
  if (signature === state.legendSignature) return isolate(state);
  state.legendSignature = signature;
  state.legend.replaceChildren();
  state.names = new Map();
  for (const run of runs) {
    const button = element(state.legend, "button", "");
    state.names.set(run.name, button);
    button.type = "button";
    button.title = "Show this run alone";
    button.append(swatch(run, colours));
    element(button, "span", "", run.label);
    const point = (name) => { state.pointed = name; isolate(state); };
    button.onpointerenter = ({ pointerType }) => { if (pointerType === "mouse") point(run.name); };
    button.onfocus = () => { if (button.matches(":focus-visible")) point(run.name); };
    button.onpointerleave = button.onblur = () => point(undefined);
    button.onclick = () => { state.only = state.only === run.name ? undefined : run.name; isolate(state); };
  }
  isolate(state);
  const reset = element(state.legend, "button", "lab-reset", "Show the whole run");
  reset.type = "button";
  reset.hidden = !state.zoom;
  reset.onclick = () => { state.zoom = undefined; state.revision += 1; draw(state); };
  const save = element(state.legend, "button", "lab-save", "Save picture");
  save.type = "button";
  save.onclick = () => picture(state);
  if (key) element(state.legend, "span", "lab-key", key);
}

function isolate(state) {  // the run under the pointer or the chosen one stands out; the others are faint
  const { runs } = state.data;
  if (!runs.some((run) => run.name === state.only)) state.only = undefined;
  const alone = runs.length > 1 ? state.pointed ?? state.only : undefined;
  for (const [name, button] of state.names) button.setAttribute("aria-pressed", String(name === state.only));
  const faint = (name) => (alone !== undefined && name !== undefined && name !== alone ? "0.12" : "");
  for (const node of state.plot.querySelectorAll(".cartesianlayer .trace")) node.style.opacity = faint(state.owners[node.__data__?.[0]?.trace?.index]);
  state.marks?.shapes.forEach(({ name }, index) => {
    for (const node of state.plot.querySelectorAll(`.shapelayer path[data-index="${index}"]`)) node.style.opacity = faint(name);
  });
  state.marks?.annotations.forEach(({ name }, index) => {
    const node = state.plot.querySelector(`.annotation[data-index="${index}"]`);
    if (node) node.style.opacity = faint(name);
  });
  state.plot.dataset.alone = alone ?? "";
}

function hoverAll(state, event) {  // the step under the pointer is read off in all panels
  const { plot, Plotly } = state;
  const subplots = Object.keys(plot._fullLayout._plots);
  const x = event.xvals?.[0] ?? event.points[0]?.x;
  if (state.hovering || subplots.length < 2 || x === undefined) return;
  state.hovering = true;
  Plotly.Fx.hover(plot, { xval: Number(x) }, subplots);
  state.hovering = false;
  plot.dataset.hover = String(event.points[0]?.x);
}

function picture(state) {  // the figure as PNG on the page's own ground, with a legend in it
  const { runs } = state.data;
  const first = new Set();
  const data = state.traces.map((trace) => {
    const leads = trace.fill === undefined && trace.line?.width > 1 && !first.has(trace.meta);
    if (leads) first.add(trace.meta);
    return { ...trace, showlegend: leads };
  });
  const ground = getComputedStyle(state.root).getPropertyValue("--st-background-color");
  const above = 24 * (1 + Math.ceil(runs.length / 2));
  const { width, height } = state.layout;
  const inner = height - state.layout.margin.t - state.layout.margin.b;
  const layout = { ...structuredClone(state.layout), showlegend: true, paper_bgcolor: ground, plot_bgcolor: ground, height: height + above,
                   legend: { orientation: "h", x: 0, xanchor: "left", y: 1 + 30 / inner, yanchor: "bottom" } };
  layout.margin.t += above;
  state.Plotly.downloadImage({ data, layout }, { format: "png", scale: 2, width, height: height + above, filename: runs.map((r) => r.name).join("-").slice(0, 80) });
}

function upto(trace, step) {
  if (step === Infinity) return trace;
  const kept = trace.x.map((x, i) => [x, trace.y[i]]).filter(([x]) => x <= step);
  return { ...trace, x: kept.map(([x]) => x), y: kept.map(([, y]) => y) };
}

function replay(state) {  // a slider over the steps: the curves are drawn up to where it stands
  const { until, end } = state.data.replay;
  if (!state.replay) {
    const root = element(state.root, "div", "lab-replay");
    state.root.insertBefore(root, state.plot);
    const name = element(root, "label", "", "Replay up to step");
    const input = element(root, "input", "");
    Object.assign(input, { type: "range", min: "0", step: "1", id: "lab-replay" });
    name.htmlFor = input.id;
    const said = element(root, "output", "");
    const play = element(root, "button", "", "Play");
    play.type = "button";
    state.replay = { root, input, said, play };
    input.oninput = () => { halt(state); moveTo(state, Number(input.value)); };
    input.onchange = () => rest(state);
    play.onclick = () => (state.playing ? rest(state) : run(state));
  }
  state.replay.root.hidden = false;
  state.replay.input.max = String(end);
  if (state.told === `${until} ${end}` || state.playing || state.whole) return;
  state.told = `${until} ${end}`;  // Python says something new: another run, or the page's address
  say(state, until);
}

function say(state, step) {
  state.until = step;
  state.replay.input.value = String(step);
  state.replay.said.textContent = `${step} of ${state.data.replay.end}`;
  state.plot.dataset.until = String(step);
}

function moveTo(state, step) {  // while it moves, the whole curves are drawn once and a mask lets them be seen up to the step
  say(state, step);
  if (state.whole) mask(state);
  else { state.whole = true; draw(state); }
}

function masks(state) {  // plotly's own frames of the panels, by the name of their axis
  return [...state.plot.querySelectorAll("clipPath.plotclip")].map((clip) => [/(x\d*)y\d*plot$/.exec(clip.id)?.[1], clip.firstElementChild]).filter(([x]) => x);
}

function mask(state) {
  for (const [x, rect] of masks(state)) {
    rect.dataset.width ??= rect.getAttribute("width");
    const seen = state.plot._fullLayout[x.replace("x", "xaxis")].d2p(state.until) + 1;
    rect.setAttribute("width", String(Math.max(0, Math.min(Number(rect.dataset.width), seen))));
  }
}

function unmask(state) {
  for (const [, rect] of masks(state)) {
    if (rect.dataset.width) rect.setAttribute("width", rect.dataset.width);
    delete rect.dataset.width;
  }
}

function keepScales(state) {  // a replayed part keeps the scales of the whole, which has to be drawn first
  const axes = Object.entries(state.plot._fullLayout).filter(([name]) => /^yaxis\d*$/.test(name));
  state.scales = Object.fromEntries(axes.map(([name, axis]) => [name, [...axis.range]]));
  if (!state.settling) return;
  state.settling = state.whole = false;
  draw(state);
}

function rest(state) {  // the step stands: draw what has happened until then and no more, and tell Python
  halt(state);
  state.whole = false;
  draw(state);
  state.setStateValue("until", state.until);
}

function run(state) {  // from where it stands, or from the start, to the end, all of it in eight seconds
  const { end } = state.data.replay;
  let last = performance.now();
  let at = state.until >= end ? 0 : state.until;
  state.replay.play.textContent = "Pause";
  const tick = (now) => {
    if (!state.root.isConnected) return halt(state);
    at = Math.min(end, at + (end * (now - last)) / 8000);
    last = now;
    moveTo(state, Math.round(at));
    if (at < end) state.playing = requestAnimationFrame(tick);
    else rest(state);
  };
  state.playing = requestAnimationFrame(tick);
}

function halt(state) {
  cancelAnimationFrame(state.playing);
  state.playing = undefined;
  state.replay.play.textContent = "Play";
}

function drawSoon(state) {  // leaves the browser at least two thirds of its time, however slow it draws
  state.timer ??= setTimeout(() => { state.timer = undefined; draw(state); }, Math.max(0, (state.drawn ?? 0) + 2 * (state.took ?? 0) - performance.now()));
}

function draw(state) {
  const { data, plot, Plotly } = state;
  const began = performance.now();
  if (!data || !Plotly || !plot.isConnected) return;
  const width = plot.clientWidth;
  if (!width) { state.width = 0; return; }
  const columns = width < 620 ? 1 : width < 1000 ? 2 : width < 1500 ? 3 : 4;
  const layout = structuredClone(data.layouts[columns]);
  const theme = themeOf(state);
  Object.assign(state, { width, dark: isDark(state.root) });
  layout.template = { layout: structuredClone(theme) };  // plotly changes what it gets
  const until = data.replay ? state.until : Infinity;
  unmask(state);
  layout.shapes = inTheme(data.shapes.filter((shape) => shape.x0 <= until), theme.meta);
  layout.annotations.push(...inTheme(data.labels.filter((label) => label.x <= until), theme.meta));
  state.marks = { shapes: layout.shapes, annotations: layout.annotations };
  layout.width = width;
  layout.uirevision = state.revision;
  if (columns === 1) layout.dragmode = false;  // a finger scrolls the page
  if (state.zoom) for (const name of Object.keys(layout)) if (name.startsWith("xaxis")) layout[name].range = [...state.zoom];
  if (data.replay && !state.whole && until < data.replay.end) for (const [name, range] of Object.entries(state.scales ?? {})) layout[name].range ??= range;
  const byRun = data.runs.map((run) => inTheme(JSON.parse(run.traces), theme.meta).map((trace) => upto(trace, state.whole ? Infinity : until)));
  const traces = byRun.flat();
  Object.assign(state, { traces, layout, owners: byRun.flatMap((own, at) => own.map(() => data.runs[at].name)) });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", data.alt);
  state.busy = true;
  Plotly.react(plot, traces, layout, { displayModeBar: false, doubleClick: false }).then(() => {
    state.busy = false;
    if (state.whole) mask(state);
    if (data.replay && (state.whole || until >= data.replay.end)) keepScales(state);
  });
  if (!state.listening) {
    state.listening = true;
    plot.on("plotly_relayout", (change) => {
      if (state.busy) return;
      const key = Object.keys(change).find((k) => /^xaxis\d*\.range(\[0\])?$/.test(k));
      if (!key) return;
      const axis = key.split(".")[0];
      state.zoom = (change[`${axis}.range`] ?? [change[`${axis}.range[0]`], change[`${axis}.range[1]`]]).map(Number);
      legend(state);
    });
    plot.on("plotly_hover", (event) => hoverAll(state, event));
    plot.on("plotly_unhover", () => { if (!state.hovering) delete plot.dataset.hover; });
    plot.on("plotly_doubleclick", () => { state.zoom = undefined; state.revision += 1; draw(state); });
  }
  legend(state);
  state.drawn = performance.now();
  state.took = state.drawn - began;
  plot.dataset.points = String(Math.max(0, ...traces.map((t) => t.x.length)));
  plot.dataset.step = String(data.step);
  plot.dataset.draws = String(Number(plot.dataset.draws ?? 0) + 1);
}

export default function ({ data: [data], parentElement, setStateValue }) {
  let state = states.get(parentElement);
  if (!state) {
    parentElement.querySelector(".lab-live")?.remove();
    const root = element(parentElement, "div", "lab-live");
    state = { root, legend: element(root, "div", "lab-legend"), plot: element(root, "div", "lab-plot"), names: new Map(), revision: 1 };
    states.set(parentElement, state);
    state.unwatch = watch(root, parentElement, () => {
      if (!state.seen || (state.width === state.plot.clientWidth && state.dark === isDark(root))) return;  // Streamlit marks its elements at every run
      draw(state);
    });
  }
  state.setStateValue = setStateValue;
  const text = JSON.stringify(data);
  if (text !== state.text) {
    if (state.data && state.data.along !== data.along) { state.zoom = undefined; state.revision += 1; }  // another axis, other numbers
    Object.assign(state, { data, text });
    if (data.replay) {
      const drawn = JSON.stringify({ ...data, replay: undefined });
      replay(state);
      if (drawn !== state.drawnText && state.until < data.replay.end && !state.whole) state.settling = state.whole = true;
      state.drawnText = drawn;
    }
    load(data.plotly).then((Plotly) => {
      state.Plotly = Plotly;
      if (state.seen) drawSoon(state);
      else whenSeen(state.plot, () => { state.seen = true; drawSoon(state); });
    })
        .catch((error) => { state.plot.className = "lab-problem"; state.plot.textContent = `The curves cannot be drawn: ${error.message}.`; });
  }
  return () => {
    if (parentElement.isConnected) return;
    state.unwatch();
    if (state.Plotly) state.Plotly.purge(state.plot);
    states.delete(parentElement);
  };
}
