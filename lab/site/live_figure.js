// The figures of the documentation site. It does in the browser what the dashboard's server does for slider_figure.js: after every drag it
// gives each slider its figures at the present values of the others.
const FOLDER = new URL(".", document.currentScript.src).href;
const hosts = new Map();  // by the name of a figure: the places of the page that show it

function valueAt(tables, table, places) {
  return table.values[table.at[table.axes.reduce((index, axis) => index * tables.sizes[axis] + places[axis], 0)]];
}

function attributesAt(tables, places, axis) {  // those that depend on the slider `axis`; without it all that change
  const found = { traces: {}, layout: {} };
  for (const table of tables.attributes) {
    if (axis !== undefined && !table.axes.includes(axis)) continue;
    const part = table.trace === null ? found.layout : found.traces[table.trace] ??= {};
    part[table.name] = valueAt(tables, table, places);
  }
  return found;
}

function sentenceAt(tables, places) {
  return tables.phrases.map((table) => valueAt(tables, table, places)).filter((phrase) => phrase).join(" ");
}

function dataAt(tables, places) {  // what Python sends in the dashboard
  const { traces, layout } = attributesAt(tables, places);
  const figure = {
    data: tables.figure.data.map((trace, index) => ({ ...trace, ...traces[index] })),
    layout: { ...tables.figure.layout, ...layout },
  };
  const sliders = tables.sizes.map((size, axis) => {
    const all = Array.from({ length: size }, (_, place) => Object.assign([...places], { [axis]: place }));
    return { frames: all.map((other) => attributesAt(tables, other, axis)), says: all.map((other) => sentenceAt(tables, other)) };
  });
  return {
    ...tables.data,
    sliders: tables.data.sliders.map((slider, axis) => ({ ...slider, at: places[axis] })),
    says: sentenceAt(tables, places),
    drawing: JSON.stringify({ figure, sliders }),
    plotly: FOLDER + PLOTLY_FILE,
  };
}

function show(host, tables) {
  const draw = (places) => sliderFigure({ data: [dataAt(tables, places)], parentElement: host, setStateValue });
  const setStateValue = (name, values) => {
    if (name === "values") draw(tables.data.sliders.map((slider) => slider.values.indexOf(values[slider.name])));
  };
  draw(tables.data.sliders.map((slider) => slider.at));
}

function fetchFigure(name) {  // its script calls `labFigure`; as a script it also loads on a page that was opened from a folder
  const script = document.createElement("script");
  script.src = `${FOLDER}${name}.js`;
  script.onerror = () => { for (const host of hosts.get(name)) host.textContent = `The figure ${name} could not be loaded.`; };
  document.head.append(script);
}

window.labFigure = (name, tables) => { for (const host of hosts.get(name)) show(host, tables); };

for (const host of document.querySelectorAll(".lab-live")) {
  const name = host.dataset.figure;
  if (hosts.has(name)) hosts.get(name).push(host);
  else hosts.set(name, [host]);
}

const fetched = new Set();
const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const name = target.dataset.figure;
    if (!isIntersecting || fetched.has(name)) continue;
    fetched.add(name);
    fetchFigure(name);
  }
}, { rootMargin: "600px" });
for (const host of [...hosts.values()].flat()) nearby.observe(host);

// slider_figure.js looks for a change of theme on the elements around the figure; the site's theme is an attribute of <body>.
new MutationObserver(() => {
  for (const host of [...hosts.values()].flat()) host.classList.toggle("lab-redraw");
}).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
