// A table of completions: cells wrap, tokens are chips, and whatever a completion says is set as text.
const tables = new WeakMap();

function cell(row, name, { text, right, note, tokens }) {
  const made = element(row, "td", `lab-cell-${name.split(" ")[0]}`, "");
  if (right === true || right === false) {
    const mark = element(made, "span", right ? "lab-right" : "lab-wrong", right ? "✓" : "✗");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", right ? "right" : "wrong");
  }
  if (tokens?.length) {
    element(made, "span", "lab-hidden", text);
    const chips = element(made, "span", "lab-chip-line", "");
    chips.setAttribute("aria-hidden", "true");
    for (const token of tokens) element(chips, "span", /^<\/?think>$/.test(token) ? "lab-chip lab-tag" : "lab-chip", token);
  } else if (text) element(made, "span", "lab-said", text);
  if (note) element(made, "span", "lab-note", `right: ${note}`);
}

function draw(state) {
  const { heading, columns, rows } = state.data;
  const top = state.box.scrollTop;
  state.heading.textContent = heading;
  state.box.setAttribute("aria-label", heading);
  state.box.replaceChildren();
  const table = element(state.box, "table", "", "");
  const names = element(element(table, "thead", "", ""), "tr", "", "");
  for (const name of columns) element(names, "th", `lab-cell-${name.split(" ")[0]}`, name).scope = "col";
  const body = element(table, "tbody", "", "");
  for (const values of rows) {
    const row = element(body, "tr", "", "");
    values.forEach((value, i) => cell(row, columns[i], value));
  }
  state.box.scrollTop = top;
}

export default function ({ data: [data], parentElement }) {
  let state = tables.get(parentElement);
  if (!state) {
    parentElement.querySelector(".lab-samples")?.remove();
    const root = element(parentElement, "div", "lab-samples");
    state = { heading: element(root, "p", "lab-samples-heading", ""), box: element(root, "div", "lab-samples-box", "") };
    state.box.tabIndex = 0;
    state.box.setAttribute("role", "region");
    tables.set(parentElement, state);
  }
  const text = JSON.stringify(data);
  if (text !== state.text) {
    Object.assign(state, { data, text });
    draw(state);
  }
  return () => { if (!parentElement.isConnected) tables.delete(parentElement); };
}
