// Draws the curves that Python sends. plotly.js keeps the figure between ticks, so a zoom survives them.
const states = new WeakMap();

const DASHES = { solid: "", dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" };

function swatch(run) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 34);
  svg.setAttribute("height", 10);
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "line");
  const look = { x1: 0, x2: 34, y1: 5, y2: 5, stroke: run.colour, "stroke-width": 3,
                 "stroke-dasharray": DASHES[run.dash] ?? run.dash.replaceAll("px", "") };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function legend(state) {
  const { runs, key } = state.data;
  const signature = JSON.stringify([runs.map((r) => [r.name, r.label, r.colour, r.dash]), key, [...state.hidden], Boolean(state.zoom)]);
  if (signature === state.legendSignature) return;
  state.legendSignature = signature;
  state.legend.replaceChildren();
  for (const run of runs) {
    const button = element(state.legend, "button", "");
    button.type = "button";
    button.title = "Show or hide this run";
    button.setAttribute("aria-pressed", String(!state.hidden.has(run.name)));
    button.append(swatch(run));
    element(button, "span", "", run.label);
    button.onclick = () => {
      if (!state.hidden.delete(run.name)) state.hidden.add(run.name);
      draw(state);
    };
  }
  const reset = element(state.legend, "button", "lab-reset", "Whole run");
  reset.type = "button";
  reset.hidden = !state.zoom;
  reset.onclick = () => { state.zoom = undefined; state.revision += 1; draw(state); };
  if (key) element(state.legend, "span", "lab-key", key);
}

function drawSoon(state) {  // leaves the browser at least two thirds of its time, however slow it draws
  state.timer ??= setTimeout(() => { state.timer = undefined; draw(state); }, Math.max(0, (state.drawn ?? 0) + 2 * (state.took ?? 0) - performance.now()));
}

function draw(state) {
  const { data, plot, Plotly } = state;
  const began = performance.now();
  if (!data || !Plotly || !plot.isConnected) return;
  const width = plot.clientWidth;
  if (!width) return;
  const columns = width < 620 ? 1 : width < 1000 ? 2 : width < 1500 ? 3 : 4;
  const layout = structuredClone(data.layouts[columns]);
  layout.template = { layout: data.themes[isDark(state.root) ? "dark" : "light"] };
  layout.shapes = data.shapes.filter((shape) => !state.hidden.has(shape.name));
  layout.annotations.push(...data.labels.filter((label) => !state.hidden.has(label.name)));
  layout.width = width;
  layout.uirevision = state.revision;
  if (columns === 1) layout.dragmode = false;  // a finger scrolls the page
  if (state.zoom) for (const name of Object.keys(layout)) if (name.startsWith("xaxis")) layout[name].range = [...state.zoom];
  const traces = data.runs.flatMap((run) => JSON.parse(run.traces).map((t) => ({ ...t, visible: !state.hidden.has(run.name) })));
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", data.alt);
  state.busy = true;
  Plotly.react(plot, traces, layout, { displayModeBar: false, doubleClick: false }).then(() => { state.busy = false; });
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
    plot.on("plotly_doubleclick", () => { state.zoom = undefined; state.revision += 1; draw(state); });
  }
  legend(state);
  state.drawn = performance.now();
  state.took = state.drawn - began;
  plot.dataset.points = String(Math.max(0, ...traces.map((t) => t.x.length)));
  plot.dataset.step = String(data.step);
  plot.dataset.draws = String(Number(plot.dataset.draws ?? 0) + 1);
}

export default function ({ data, parentElement }) {
  let state = states.get(parentElement);
  if (!state) {
    parentElement.querySelector(".lab-live")?.remove();
    const root = element(parentElement, "div", "lab-live");
    state = { root, legend: element(root, "div", "lab-legend"), plot: element(root, "div", "lab-plot"), hidden: new Set(), revision: 1 };
    states.set(parentElement, state);
    state.unwatch = watch(root, parentElement, () => draw(state));
  }
  const text = JSON.stringify(data);
  if (text !== state.text) {
    if (state.data && state.data.along !== data.along) { state.zoom = undefined; state.revision += 1; }  // another axis, other numbers
    Object.assign(state, { data, text });
    load(data.plotly).then((Plotly) => { state.Plotly = Plotly; drawSoon(state); })
        .catch((error) => { state.plot.className = "lab-problem"; state.plot.textContent = `The curves cannot be drawn: ${error.message}.`; });
  }
  return () => {
    if (parentElement.isConnected) return;
    state.unwatch();
    if (state.Plotly) state.Plotly.purge(state.plot);
    states.delete(parentElement);
  };
}
