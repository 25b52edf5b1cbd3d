// A press answers the pair that is on the screen, and the next one is shown at once: the server sends the pairs of the
// next labels in advance. Presses go to the server in their order and stay in `queue`, and in the
// browser's storage, until it has written them: a reload loses none.
const labellers = new WeakMap();
const RESEND_MS = 2000; // A press sends again what is unanswered for so long, as after a broken connection.
const SECOND_CLICK_MS = 200; // The second click of a double click is no answer to the pair that has just come.
const KEYS = {
  pairs: { ArrowLeft: "left", f: "left", ArrowRight: "right", j: "right" },
  thumbs: { ArrowUp: "up", j: "up", ArrowDown: "down", f: "down" },
};
const COMMON = { s: "skip", z: "undo", Backspace: "undo" };
const TYPING = "input:not([type=radio]), textarea, select, [contenteditable=true], [role=combobox]";
const MOVED_BY_ARROWS = "[role=radiogroup], [role=slider], [role=tab]";

// The pairs that come after an action at state.plan[0], or undefined where the action cannot be had there.
function after(state, action) {
  const [shown, ...later] = state.plan;
  if (action === "undo") return state.before.get(state.turn - 1);
  if (!shown) return undefined;
  return action === "skip" ? [shown.skipped].filter(Boolean) : later;
}

function step(state, action) {
  const plan = after(state, action);
  if (action !== "undo") state.before.set(state.turn, state.plan);
  state.turn += action === "undo" ? -1 : 1;
  state.plan = plan ?? [];
  state.waits = !state.plan.length;
}

function press(state, action) {
  const { data } = state;
  if (!action || data.refusal || (state.waits && state.queue.length)) return;
  if (action === "undo" ? state.turn <= 1 : !state.plan.length) return;
  state.number += 1;
  state.pressedAt = performance.now();
  state.queue.push({ number: state.number, action, turn: state.turn, question: state.plan[0]?.question ?? "" });
  store(state);
  step(state, action);
  send(state, performance.now() - state.sentAt > RESEND_MS);
  show(state);
}

// One message is under way at a time, so that the presses of a moment travel together.
function send(state, again) {
  if (!state.queue.length || (state.sent > state.done && !again)) return;
  state.sent = state.number;
  state.sentAt = performance.now();
  state.setTriggerValue("command", { client: state.client, source: state.data.source, actions: state.queue });
}

const place = ({ data }) => `lab-labeller ${data.source}`;

function store(state) {
  const { client, number, queue } = state;
  if (queue.length) sessionStorage.setItem(place(state), JSON.stringify({ client, number, queue }));
  else sessionStorage.removeItem(place(state));
}

// Take up what an earlier view of this set has stored; from then on the server must say what it has written of it.
function restore(state) {
  Object.assign(state, { client: `${Date.now()}-${Math.random()}`, number: 0, queue: [], before: new Map(), done: 0, sent: 0, sentAt: 0 });
  Object.assign(state, JSON.parse(sessionStorage.getItem(place(state))));
  state.restored = state.queue.length > 0;
}

// The labels on the server are the truth. Presses that it has not seen yet follow from there, as far as they fit.
function receive(state, data) {
  const isNew = data.source !== state.data?.source;
  state.data = data;
  if (isNew) restore(state);
  if (data.client === state.client) state.done = data.done;
  state.queue = state.queue.filter(({ number }) => number > state.done);
  store(state);
  state.lost = 0;
  if (state.restored && state.queue.length) {
    Object.assign(state, { plan: [], turn: data.turn, waits: true });
    return send(state, false);
  }
  if (state.restored) restore(state); // A name of its own: a duplicated tab has restored the same.
  state.plan = data.plan;
  state.turn = data.turn;
  state.waits = false;
  for (const [index, pressed] of state.queue.entries()) {
    const fits = pressed.turn === state.turn && (pressed.action === "undo" || pressed.question === state.plan[0]?.question);
    if (!fits) {
      state.lost = state.queue.length - index;
      state.queue = state.queue.slice(0, index);
      store(state);
      break;
    }
    step(state, pressed.action);
  }
  return send(state, false);
}

function keyed(state, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!state.root.isConnected || event.target.closest?.(TYPING)) return;
  if (event.key.startsWith("Arrow") && event.target.closest?.(MOVED_BY_ARROWS)) return;
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
  button.onclick = (event) => {
    if (event.detail < 2 || performance.now() - state.pressedAt > SECOND_CLICK_MS) press(state, action);
  };
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
  const { answers } = state.plan[0];
  const box = element(root, "div", "lab-answers", "");
  box.dataset.mode = data.mode;
  if (data.mode === "pairs") {
    choice(state, box, "left", answers[0], "← or F").setAttribute("aria-label", `Prefer the left answer: ${answers[0]}`);
    choice(state, box, "right", answers[1], "→ or J").setAttribute("aria-label", `Prefer the right answer: ${answers[1]}`);
    return;
  }
  element(box, "p", "lab-answer-text lab-single", answers[0]);
  const thumbs = element(box, "div", "lab-thumbs", "");
  choice(state, thumbs, "up", "Good", "↑ or J");
  choice(state, thumbs, "down", "Bad", "↓ or F");
}

function words(state) {
  const { data } = state;
  if (state.lost) return `Another window has labelled this set, or the server was restarted: your last presses (${state.lost}) no longer fit.`;
  return data.problem || data.refusal || data.status;
}

function show(state) {
  const { data, root } = state;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.action : undefined;
  root.replaceChildren();
  const status = element(root, "p", "lab-label-status", words(state));
  status.setAttribute("role", "status");
  status.classList.toggle("lab-label-problem", Boolean(data.problem || state.lost));
  const bar = element(root, "progress", "lab-label-progress", "");
  bar.max = data.goal;
  bar.value = Math.min(data.count, data.goal);
  bar.setAttribute("aria-label", `${data.count} of ${data.goal} labels`);
  if (state.plan.length) {
    element(root, "p", "lab-label-prompt", state.plan[0].prompt);
    answers(state);
  } else element(root, "p", "lab-label-prompt", state.waits ? "Your labels are being written. Then the next pair comes." : "Every pair of this pool is labelled or skipped.");
  const tools = element(root, "div", "lab-tools", "");
  tool(state, tools, "skip", "Skip", "S", !state.plan.length || Boolean(data.refusal));
  tool(state, tools, "undo", "Undo", "Z", state.turn <= 1 || state.waits || Boolean(data.refusal));
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
  state.setTriggerValue = setTriggerValue;
  const text = JSON.stringify(data);
  if (text !== state.text) {
    state.text = text;
    receive(state, data);
    show(state);
  }
  return () => {
    if (parentElement.isConnected) return;
    state.end();
    labellers.delete(parentElement);
  };
}
