// One label at a time. A press is sent once: the buttons wait until the server has written the label and asks the next pair.
const labellers = new WeakMap();
const KEYS = {
  pairs: { ArrowLeft: "left", f: "left", ArrowRight: "right", j: "right" },
  thumbs: { ArrowUp: "up", j: "up", ArrowDown: "down", f: "down" },
};
const COMMON = { s: "skip", z: "undo", Backspace: "undo" };
const TYPING = "input, textarea, select, [contenteditable=true], [role=combobox], [role=radiogroup], [role=slider], [role=tab]";

function press(state, action) {
  const { data } = state;
  if (!action || state.sent || data.refusal) return;
  if (action !== "undo" && !data.answers.length) return;
  if (action === "undo" && !data.turn_before) return;
  state.sent = `${data.turn} ${data.question}`;
  state.root.dataset.sent = action;
  for (const button of state.root.querySelectorAll("button")) button.disabled = true;
  state.setTriggerValue("command", { action, turn: data.turn, question: data.question });
}

function keyed(state, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!state.root.isConnected || event.target.closest?.(TYPING)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = KEYS[state.data.mode][key] ?? COMMON[key];
  if (!action) return;
  event.preventDefault();
  press(state, action);
}

function choice(state, parent, action, answer, hint) {
  const button = element(parent, "button", "lab-answer", "");
  button.type = "button";
  button.dataset.action = action;
  element(button, "span", "lab-answer-text", answer);
  element(button, "kbd", "", hint);
  button.onclick = () => press(state, action);
  return button;
}

function tool(state, parent, action, label, hint, disabled) {
  const button = element(parent, "button", "lab-tool", `${label} `);
  button.type = "button";
  button.dataset.action = action;
  element(button, "kbd", "", hint);
  button.disabled = disabled;
  button.onclick = () => press(state, action);
}

function answers(state) {
  const { data, root } = state;
  const box = element(root, "div", "lab-answers", "");
  box.dataset.mode = data.mode;
  if (data.mode === "pairs") {
    choice(state, box, "left", data.answers[0], "← or F").setAttribute("aria-label", `Prefer the left answer: ${data.answers[0]}`);
    choice(state, box, "right", data.answers[1], "→ or J").setAttribute("aria-label", `Prefer the right answer: ${data.answers[1]}`);
    return;
  }
  element(box, "p", "lab-answer-text lab-single", data.answers[0]);
  const thumbs = element(box, "div", "lab-thumbs", "");
  choice(state, thumbs, "up", "Good", "↑ or J");
  choice(state, thumbs, "down", "Bad", "↓ or F");
}

function show(state) {
  const { data, root } = state;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.action : undefined;
  root.replaceChildren();
  delete root.dataset.sent;
  state.sent = undefined;
  const status = element(root, "p", "lab-label-status", data.problem || data.refusal || data.status);
  status.setAttribute("role", "status");
  status.classList.toggle("lab-label-problem", Boolean(data.problem));
  const bar = element(root, "progress", "lab-label-progress", "");
  bar.max = data.goal;
  bar.value = Math.min(data.count, data.goal);
  bar.setAttribute("aria-label", `${data.count} of ${data.goal} labels`);
  if (data.answers.length) {
    element(root, "p", "lab-label-prompt", data.prompt);
    answers(state);
  } else element(root, "p", "lab-label-prompt", "Every pair of this pool is labelled or skipped.");
  const tools = element(root, "div", "lab-tools", "");
  tool(state, tools, "skip", "Skip", "S", !data.answers.length || Boolean(data.refusal));
  tool(state, tools, "undo", "Undo", "Z", !data.turn_before || Boolean(data.refusal));
  if (data.refusal) for (const button of root.querySelectorAll("button")) button.disabled = true;
  if (focused) root.querySelector(`[data-action=${focused}]`)?.focus({ preventScroll: true });
}

export default function ({ data: [data], parentElement, setTriggerValue }) {
  let state = labellers.get(parentElement);
  if (!state) {
    parentElement.querySelector(".lab-labeller")?.remove();
    state = { root: element(parentElement, "section", "lab-labeller", "") };
    state.root.setAttribute("aria-label", "Label one pair at a time");
    labellers.set(parentElement, state);
    const listen = (event) => keyed(state, event);
    document.addEventListener("keydown", listen);
    state.end = () => document.removeEventListener("keydown", listen);
  }
  Object.assign(state, { data, setTriggerValue });
  const text = JSON.stringify(data);
  if (text !== state.text) {
    state.text = text;
    show(state);
  }
  return () => {
    if (parentElement.isConnected) return;
    state.end();
    labellers.delete(parentElement);
  };
}
