// What every element of the lab shares. plotly.js comes from the server's own static route, once for the whole page.

function load(url) {
  window.labPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { window.labPlotly = undefined; reject(new Error(`${url} could not be loaded`)); };
    document.head.append(script);
  });
  return window.labPlotly;
}

function element(parent, tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

// Both write numbers as lab/config/number_text.py does.
function numberText(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const [digits, power] = value.toExponential(3).split("e").map(Number);
  return power < -4 || power > 3 ? `${digits}e${power}` : String(Number(value.toPrecision(4)));
}

function signedNumber(value) {
  const text = Math.abs(value).toFixed(2);
  return Number(text) ? `${value < 0 ? "−" : "+"}${text}` : "0";
}

function isDark(node) {
  const probe = element(node, "span", "");
  probe.style.color = "var(--st-background-color)";
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
}

function watch(root, parent, redraw) {  // calls `redraw` when the width or the theme changes; returns what ends it
  let width;
  const whileThere = () => { if (root.isConnected) redraw(); };  // an element that leaves the page is reported too, with no width
  const resize = new ResizeObserver(() => {  // the height changes with every figure that is drawn
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    whileThere();
  });
  resize.observe(root);
  const theme = new MutationObserver(whileThere);  // the page's theme is a set of variables on an ancestor
  for (let node = parent; node && node !== document.body; node = node.parentElement) {
    theme.observe(node, { attributes: true, attributeFilter: ["style", "class"] });
  }
  return () => { resize.disconnect(); theme.disconnect(); };
}

function whenSeen(node, draw) {  // draws at once what is in view, and the rest when the browser has nothing else to do
  let done = false;
  const go = () => {
    if (done) return;
    done = true;
    seen.disconnect();
    draw();
  };
  const seen = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) go(); });
  seen.observe(node);
  (window.requestIdleCallback ?? setTimeout)(go);
}

const NUMBERS_AND_TEXTS = new Set(["x", "y", "ids", "text", "customdata", "hovertemplate", "template"]);

function inTheme(value, colours) {  // the attributes of a figure, with the colours of the theme
  if (typeof value === "string") return colours[value] ?? value;
  if (Array.isArray(value)) return value.map((item) => inTheme(item, colours));
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, NUMBERS_AND_TEXTS.has(name) ? item : inTheme(item, colours)]));
}
