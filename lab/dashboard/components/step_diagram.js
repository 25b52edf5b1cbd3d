// A picture in steps: buttons for the steps, Play, and the picture and the sentence of the present step, all of which Python made before.
const diagrams = new WeakMap();
const STEP_MS = 1800;  // between two steps of a playing diagram

function showStep(state, at) {
  const { steps } = state.data;
  state.at = Math.max(0, Math.min(steps.length - 1, at));
  const step = steps[state.at];
  state.root.dataset.at = String(state.at);
  for (const [index, button] of state.buttons.entries()) {
    button.setAttribute("aria-pressed", String(index === state.at));
    button.tabIndex = index === state.at ? 0 : -1;
  }
  if (state.drawn !== step.html) {
    const parsed = new DOMParser().parseFromString(step.html, "text/html");
    state.picture.replaceChildren(...parsed.body.childNodes);
    state.drawn = step.html;
    state.root.dispatchEvent(new CustomEvent("lab-drawn", { bubbles: true }));
  }
  state.words.textContent = step.says ?? "";
  state.words.hidden = !step.says;
}

function tellStep(state) {
  state.setStateValue("step", state.data.steps[state.at].name);
}

function stopSteps(state) {
  clearInterval(state.playing);
  state.playing = undefined;
  state.play.textContent = "▶ Play";
}

function playSteps(state) {
  if (state.playing) { stopSteps(state); tellStep(state); return; }
  state.play.textContent = "⏸ Pause";
  const last = state.data.steps.length - 1;
  showStep(state, state.at === last ? 0 : state.at + 1);
  state.playing = setInterval(() => {
    if (!state.root.isConnected) return stopSteps(state);
    if (state.at < last) showStep(state, state.at + 1);
    if (state.at === last) { stopSteps(state); tellStep(state); }
  }, STEP_MS);
}

function pressStep(state, at) {
  if (state.playing) stopSteps(state);
  showStep(state, at);
  tellStep(state);
}

function buildSteps(state) {
  const { steps, label } = state.data;
  const names = JSON.stringify([label, ...steps.map((step) => step.label)]);
  if (names === state.names) return;
  state.names = names;
  state.bar.replaceChildren();
  state.bar.setAttribute("aria-label", label);
  state.play = element(state.bar, "button", "lab-walk", "▶ Play");
  state.play.type = "button";
  state.play.setAttribute("aria-label", `Play or pause: ${label}`);
  state.play.onclick = () => playSteps(state);
  state.buttons = steps.map((step, index) => {
    const button = element(state.bar, "button", "", step.label);
    button.type = "button";
    button.onclick = () => pressStep(state, index);
    return button;
  });
}

function makeSteps(parentElement) {
  parentElement.querySelector(".lab-diagram")?.remove();
  const root = element(parentElement, "div", "lab-diagram");
  const state = { root, bar: element(root, "div", "lab-diagram-bar"), picture: element(root, "div", "lab-diagram-picture"), words: element(root, "p", "lab-says") };
  state.bar.setAttribute("role", "group");
  state.bar.onkeydown = (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move || event.target === state.play) return;
    event.preventDefault();
    pressStep(state, state.at + move);
    state.buttons[state.at].focus();
  };
  state.picture.onclick = (event) => {  // a click on what a step is named for goes there
    const name = event.target.closest("[data-name]")?.dataset.name;
    const at = state.data.steps.findIndex((step) => step.name === name);
    if (at >= 0) pressStep(state, at);
  };
  root.addEventListener("lab-move", (event) => {
    if (state.playing) stopSteps(state);
    showStep(state, event.detail);
  });
  state.dark = isDark(root);
  state.unwatch = watch(root, parentElement, () => {
    const dark = isDark(root);
    if (dark !== state.dark) state.setStateValue("dark", dark);  // Python draws again, in the theme's colours
    state.dark = dark;
  });
  return state;
}

export default function ({ data: [data], parentElement, setStateValue }) {
  let state = diagrams.get(parentElement);
  if (!state) diagrams.set(parentElement, state = makeSteps(parentElement));
  state.setStateValue = setStateValue;
  const text = JSON.stringify(data);
  if (text !== state.text) {
    const first = state.text === undefined || data.key !== state.data.key;
    Object.assign(state, { text, data });
    buildSteps(state);
    showStep(state, first ? data.at : state.at);
  }
  return () => {
    if (parentElement.isConnected) return;
    state.unwatch();
    stopSteps(state);
    diagrams.delete(parentElement);
  };
}
