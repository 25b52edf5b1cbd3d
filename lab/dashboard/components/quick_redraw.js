// Redraws what a slider changed straight in the SVG that plotly.js has drawn. `Plotly.react` takes five times as long, because it lays the whole
// figure out again. It draws what stands here only while the hand moves; at rest slider_figure.js calls `Plotly.react` with the same figure.
const quickRedraw = (() => {
const QUICK = {
  scatter: ["x", "y", "name", "customdata", "text", "marker", "textfont", "error_y"],
  bar: ["x", "y", "name", "customdata", "width"],
};
const WITHIN = { marker: ["symbol"], textfont: ["size"], error_y: ["array", "arrayminus"] };
const WITHIN_LAYOUT = { shapes: ["x0", "x1", "y0", "y1"], annotations: ["x", "y", "text"] };
const SYMBOLS = {  // plotly's paths of these symbols, at the radius r
  circle: (r) => `M${r},0A${r},${r} 0 1,1 0,${-r}A${r},${r} 0 0,1 ${r},0Z`,
  "triangle-up": (r) => `M${-2 * r / Math.sqrt(3)},${r / 2}H${2 * r / Math.sqrt(3)}L0,${-r}Z`,
  "triangle-down": (r) => `M${-2 * r / Math.sqrt(3)},${-r / 2}H${2 * r / Math.sqrt(3)}L0,${r}Z`,
};
const templates = new WeakMap();  // by a group of the figure: one of its nodes, to copy when points come back

const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

function differsOnlyIn(before, now, names) {
  return [...Object.keys({ ...before, ...now })].every((name) => names.includes(name) || same(before[name], now[name]));
}

function movedRanges(before, now, moved) {  // what `Plotly.relayout` takes for the axes of which the ranges alone differ
  const axes = Object.keys(moved.layout).filter((name) => /^[xy]axis/.test(name) && now.layout[name]?.range && !same(before.layout[name], now.layout[name]));
  return Object.fromEntries(axes.filter((name) => differsOnlyIn(before.layout[name], now.layout[name], ["range"])).map((name) => [`${name}.range`, [...now.layout[name].range]]));
}

function quickRedraw(plot, before, now, moved, setRanges) {  // returns false, and draws no whole picture, if it cannot draw the difference
  const steps = [];
  const ranges = movedRanges(before, now, moved);
  if (Object.keys(ranges).length) setRanges(ranges);  // first: the new places of the points follow from them
  const nodes = new Map([...plot.querySelectorAll(".cartesianlayer .trace")].map((node) => [node.__data__?.[0]?.trace?.index, node]));
  for (const [index, changed] of Object.entries(moved.traces)) {
    const full = plot._fullData[index], node = nodes.get(Number(index));
    if (full.visible === false && now.traces[index].y?.length) return false;  // plotly hides a trace without points; now it has some
    if (full.visible !== true) continue;
    const names = Object.keys(changed);
    if (!node || !traceIsQuick(plot, full, before.traces[index], now.traces[index], names)) return false;
    const step = (full.type === "bar" ? barStep : scatterStep)(plot, Number(index), node, full, now.traces[index], names);
    if (!step) return false;
    steps.push(step);
    if (names.includes("name")) steps.push(() => nameInLegend(plot, full.index, now.traces[index].name));
  }
  for (const name of Object.keys(moved.layout)) {
    if (`${name}.range` in ranges || same(before.layout[name], now.layout[name])) continue;
    const old = before.layout[name] ?? [], items = now.layout[name] ?? [];
    if (!WITHIN_LAYOUT[name] || old.length !== items.length) return false;
    if (!items.every((item, i) => differsOnlyIn(old[i], item, WITHIN_LAYOUT[name]))) return false;
    items.forEach((item, i) => { if (!same(old[i], item)) steps.push(() => (name === "shapes" ? shapeStep : noteStep)(plot, i, item)); });
  }
  for (const step of steps) step();
  return true;
}

function traceIsQuick(plot, full, old, trace, names) {
  if (!QUICK[full.type]?.length || names.some((name) => !QUICK[full.type].includes(name))) return false;
  if (names.some((name) => WITHIN[name] && !differsOnlyIn(old[name] ?? {}, trace[name] ?? {}, WITHIN[name]))) return false;
  if (full.type === "bar") return full.textposition === "none" || !full.text;
  return !full.stackgroup && !full.marker?.maxdisplayed && !(full.line && full.line.shape !== "linear") && ["none", "toself", undefined].includes(full.fill);
}

function axesOf(plot, full) {
  return [plot._fullLayout[full.xaxis.replace("x", "xaxis")], plot._fullLayout[full.yaxis.replace("y", "yaxis")]];
}

function pixels(plot, index, full, trace, names) {  // of each point, from the corner of its panel; not finite for a gap
  const [xaxis, yaxis] = axesOf(plot, full);
  const count = trace.y.length, cells = plot.calcdata[index];
  const kept = !names.includes("x") && cells.length === count;  // their places along x, which plotly may have shifted within a group
  const x = new Float64Array(count), y = new Float64Array(count);
  for (let i = 0; i < count; i += 1) {
    x[i] = kept ? xaxis.c2p(cells[i].x) : trace.x[i] === null ? NaN : xaxis.d2p(trace.x[i]);
    y[i] = trace.y[i] === null ? NaN : yaxis.d2p(trace.y[i]);
  }
  return { x, y, count, height: yaxis._length };
}

function linePath({ x, y, count, height }) {  // cut a panel's height above and below the panel: a dashed line of a million pixels is slow
  const low = -height, high = 2 * height;
  const cut = (i, j, edge) => `${(x[i] + ((x[j] - x[i]) * (edge - y[i])) / (y[j] - y[i])).toFixed(2)},${edge}`;
  let path = "", pen = false;
  for (let i = 0; i < count; i += 1) {
    const inside = y[i] >= low && y[i] <= high && Number.isFinite(x[i]);
    const before = i > 0 && Number.isFinite(y[i - 1]) && Number.isFinite(y[i]) && Number.isFinite(x[i - 1]);
    if (inside) {
      if (!pen && before) path += `M${cut(i - 1, i, y[i - 1] < low ? low : high)}`;
      path += `${pen || before ? "L" : "M"}${x[i].toFixed(2)},${y[i].toFixed(2)}`;
    } else if (pen && before) path += `L${cut(i - 1, i, y[i] < low ? low : high)}`;
    else if (before && y[i - 1] < low !== y[i] < low) path += `M${cut(i - 1, i, y[i - 1] < low ? low : high)}L${cut(i - 1, i, y[i] < low ? low : high)}`;
    pen = inside;
  }
  return path || "M0,0";
}

function resized(parent, selector, count) {  // the group's nodes, of which there are now `count`; undefined if there is none to copy
  const nodes = [...parent.querySelectorAll(`:scope > ${selector}`)];
  if (nodes.length) templates.set(parent, nodes[0]);
  if (!templates.has(parent) && count) return undefined;
  while (nodes.length > count) nodes.pop().remove();
  while (nodes.length < count) nodes.push(parent.appendChild(templates.get(parent).cloneNode(true)));
  return nodes;
}

function scatterStep(plot, index, node, full, trace, names) {
  const { mode } = full, markers = mode.includes("markers"), texts = mode.includes("text");
  const symbols = names.includes("marker") && trace.marker.symbol;
  if (symbols && [symbols].flat().some((symbol) => !SYMBOLS[symbol])) return undefined;
  if (texts && trace.text?.some((text) => /<|&(?!lt;|gt;|amp;)/.test(text))) return undefined;
  const points = node.querySelector(":scope > .points"), words = node.querySelector(":scope > .text");
  const at = pixels(plot, index, full, trace, names);
  const finite = [...at.y.keys()].filter((i) => Number.isFinite(at.x[i]) && Number.isFinite(at.y[i]));
  const spoken = texts ? finite.filter((i) => trace.text[i]) : [];
  if (markers && finite.length && !points?.firstElementChild && !templates.has(points)) return undefined;
  if (spoken.length && !words?.querySelector("text") && !templates.has(words)) return undefined;
  const errors = names.includes("error_y") || full.error_y?.visible ? errorPaths(plot, full, trace, at, finite) : [];
  if (errors.length !== node.querySelectorAll(":scope > .errorbars path.yerror").length) return undefined;
  return () => {
    node.querySelectorAll(":scope > .lines > path.js-line").forEach((line, i) => line.setAttribute("d", i ? "M0,0" : linePath(at)));
    if (full.fill === "toself") node.querySelector(":scope > .fills path")?.setAttribute("d", `${linePath(at)}Z`);
    node.querySelectorAll(":scope > .errorbars path.yerror").forEach((bar, i) => bar.setAttribute("d", errors[i]));
    if (markers) resized(points, "path.point", finite.length).forEach((point, k) => {
      const i = finite[k];
      point.setAttribute("transform", `translate(${at.x[i].toFixed(2)},${at.y[i].toFixed(2)})`);
      if (symbols) point.setAttribute("d", SYMBOLS[Array.isArray(symbols) ? symbols[i] : symbols](full.marker.size / 2));
    });
    if (texts) resized(words, "g.textpoint", spoken.length).forEach((group, k) => {
      const text = group.querySelector("text"), i = spoken[k];
      text.setAttribute("x", at.x[i]);
      text.setAttribute("y", at.y[i]);
      text.textContent = trace.text[i].replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
      if (trace.textfont?.size) text.style.fontSize = `${trace.textfont.size}px`;
    });
  };
}

function errorPaths(plot, full, trace, at, finite) {
  const yaxis = axesOf(plot, full)[1], hat = full.error_y.width, { array, arrayminus = array } = trace.error_y;
  return finite.map((i) => {
    const up = yaxis.d2p(trace.y[i] + array[i]), down = yaxis.d2p(trace.y[i] - arrayminus[i]);
    return `M${at.x[i] - hat},${up}h${2 * hat}m${-hat},0V${down}m${-hat},0h${2 * hat}`;
  });
}

function barStep(plot, index, node, full, trace, names) {
  const [xaxis, yaxis] = axesOf(plot, full), cells = plot.calcdata[index];
  const moved = names.includes("x") || names.includes("width");
  const parent = node.querySelector(":scope > .points");
  const count = trace.y.length;
  if (moved && (plot._fullLayout.barmode !== "overlay" || typeof trace.width !== "number")) return undefined;
  if (!moved && cells.length !== count) return undefined;
  if (count && !parent?.firstElementChild && !templates.has(parent)) return undefined;
  return () => resized(parent, "g.point", count).forEach((bar, i) => {
    const [left, right] = moved ? [-1, 1].map((side) => xaxis.d2p(trace.x[i] + (side * trace.width) / 2)) : [xaxis.c2p(cells[i].p0), xaxis.c2p(cells[i].p1)];
    const low = yaxis.d2p(0), high = yaxis.d2p(trace.y[i] ?? 0);
    bar.querySelector("path").setAttribute("d", `M${left},${low}V${high}H${right}V${low}Z`);
  });
}

function nameInLegend(plot, index, name) {
  const entry = [...plot.querySelectorAll(".legend .traces")].find((node) => node.__data__?.[0]?.trace?.index === index);
  const text = entry?.querySelector(".legendtext");
  if (text && !text.querySelector("tspan")) text.textContent = name;
}

function place(plot, reference, value, log) {  // in pixels of the figure, of a shape's or a note's coordinate
  const [id, domain] = reference.split(" ");
  const axis = plot._fullLayout[`${id[0]}axis${id.slice(1)}`];
  if (domain) return axis._offset + axis._length * (id[0] === "y" ? 1 - value : value);
  return axis._offset + (log && axis.type === "log" ? axis.l2p(value) : axis.d2p(value));
}

function shapeStep(plot, index, shape) {
  const [x0, x1] = [shape.x0, shape.x1].map((value) => place(plot, shape.xref ?? "x", value));
  const [y0, y1] = [shape.y0, shape.y1].map((value) => place(plot, shape.yref ?? "y", value));
  const path = shape.type === "line" ? `M${x0},${y0}L${x1},${y1}` : `M${x0},${y0}H${x1}V${y1}H${x0}Z`;
  for (const node of plot.querySelectorAll(`.shapelayer path[data-index="${index}"]`)) node.setAttribute("d", path);
}

function noteStep(plot, index, note) {  // moves the note away from where plotly has drawn it
  const node = plot.querySelector(`.annotation[data-index="${index}"]`), drawn = plot._fullLayout.annotations[index];
  if (!node) return;
  const by = ["x", "y"].map((name) => place(plot, drawn[`${name}ref`], note[name], true) - place(plot, drawn[`${name}ref`], drawn[name], true));
  node.setAttribute("transform", `translate(${by})`);
  const text = node.querySelector(".annotation-text");
  if (text && !text.querySelector("tspan") && text.textContent !== note.text) text.textContent = note.text;
}

return quickRedraw;
})();
