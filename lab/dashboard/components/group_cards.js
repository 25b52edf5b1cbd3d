// The group of a prompt as cards. A group is written token by token, judged, and its cards rise or sink by their advantages.
const stages = new WeakMap();
const LANE = 8;  // cards beside each other
const ROOM = 58;  // pixels that a card may rise or sink
const STEP = 46;  // pixels for an advantage of 1, where no card has one that needs more room
const PAUSE = { bars: 900, fan: 350, token: 45, judge: 500, mean: 550, film: 420 };  // milliseconds
const TYPING = 200;  // milliseconds of rest after which the typed prompt is checked

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function percent(logp) {
  const share = 100 * Math.exp(logp);
  return share >= 9.95 ? `${share.toFixed(0)} %` : share >= 0.1 ? `${share.toFixed(1)} %` : "< 0.1 %";
}

function button(parent, text, act) {
  const made = element(parent, "button", "", text);
  made.type = "button";
  made.onclick = act;
  return made;
}

function choice(state, parent, name, title, values, texts) {
  const box = element(parent, "fieldset", "lab-choice", "");
  element(box, "legend", "", title);
  values.forEach((value, at) => {
    const label = element(box, "label", "", "");
    const input = element(label, "input", "");
    Object.assign(input, { type: "radio", name: `lab-${name}`, value: String(value) });
    input.onchange = () => ask(state, { [name]: value, updates: 0 });
    label.append(texts[at]);
  });
  return box;
}

function ask(state, changes) {  // the server answers with groups; until then the old ones stay
  const id = (state.asked ?? 0) + 1 + Date.now();
  state.asked = id;
  state.root.dataset.busy = "true";
  say(state);
  state.setTriggerValue("command", { ...state.data.question, ...changes, id });
}

function say(state) {
  const { problem, says } = state.data;
  const busy = state.root.dataset.busy === "true";
  state.says.textContent = busy ? "The model is working. The first answer takes some seconds, because the model has to be loaded." : problem || says[state.at] || "";
  for (const one of state.root.querySelectorAll("button, input[type=radio]")) one.disabled = busy;
  if (!busy) limits(state);
}

function limits(state) {
  const { updates } = state.data.question;
  state.one.disabled = updates + 1 > state.data.most;
  state.ten.disabled = updates + 10 > state.data.most;
  state.undo.disabled = state.reset.disabled = updates === 0;
}

function reasons(state) {  // why the typed prompt is not accepted, as the task says it
  const isChecked = state.data.typed === state.input.value;
  state.reason.textContent = isChecked ? state.data.reason : "";
}

function sampleTyped(state) {
  const prompt = state.input.value || state.data.question.prompt;
  ask(state, { prompt, updates: 0 });
}

function build(parentElement) {
  parentElement.querySelector(".lab-group")?.remove();
  const root = element(parentElement, "section", "lab-group", "");
  root.setAttribute("aria-label", "Your prompt through the group");
  const state = { root, at: -1, run: 0 };
  const top = element(root, "form", "lab-ask", "");
  top.onsubmit = (event) => { event.preventDefault(); sampleTyped(state); };
  const label = element(top, "label", "", "Your prompt");
  state.input = element(label, "input", "");
  Object.assign(state.input, { type: "text", spellcheck: false, autocomplete: "off", maxLength: 60 });
  state.input.setAttribute("aria-describedby", "lab-reason");
  state.input.oninput = () => {
    state.reason.textContent = "";
    clearTimeout(state.typing);
    state.typing = setTimeout(() => state.setStateValue("typed", state.input.value), TYPING);
  };
  state.sample = element(top, "button", "lab-first", "Sample");
  state.sample.type = "submit";
  state.choices = element(top, "div", "lab-choices", "");
  state.reason = element(root, "p", "lab-reason", "");
  state.reason.id = "lab-reason";
  state.reason.setAttribute("role", "status");
  state.stage = element(root, "div", "lab-stage", "");
  state.stage.onclick = () => { if (root.dataset.phase !== "done") finish(state); };
  const row = element(root, "div", "lab-row", "");
  state.formula = element(row, "p", "lab-formula", "");
  const bar = element(row, "div", "lab-acts", "");
  state.one = button(bar, "Apply one update", () => ask(state, { updates: state.data.question.updates + 1 }));
  state.ten = button(bar, "Ten updates", () => ask(state, { updates: state.data.question.updates + 10 }));
  state.undo = button(bar, "Undo", () => ask(state, { updates: state.data.question.updates - 1 }));
  state.reset = button(bar, "Untouched policy", () => ask(state, { updates: 0 }));
  state.again = button(bar, "Other noise", () => ask(state, { seed: state.data.question.seed + 1, updates: 0 }));
  state.meters = element(root, "div", "lab-meters", "");
  state.says = element(root, "p", "lab-says", "");
  state.says.setAttribute("aria-live", "polite");
  const colour = () => { root.dataset.theme = isDark(root) ? "dark" : "light"; };
  colour();
  state.unwatch = watch(root, parentElement, colour);
  return state;
}

function cards(state, group) {  // the lanes of a group, without its advantages
  state.stage.replaceChildren();
  const rows = group.completions, largest = Math.max(...state.data.groups.flatMap((one) => one.completions.map((row) => Math.abs(row.advantage))));
  state.root.style.setProperty("--unit", `${Math.min(STEP, ROOM / Math.max(largest, 0.01))}px`);
  state.root.style.setProperty("--room", `${ROOM}px`);
  state.cards = [];
  for (let first = 0; first < rows.length; first += LANE) {
    const lane = element(state.stage, "div", "lab-lane", "");
    const line = element(lane, "div", "lab-mean", "");
    element(line, "span", "", `mean ${numberText(group.mean)}`);
    const list = element(lane, "ol", "", "");
    list.setAttribute("aria-label", `Completions of ${state.data.question.prompt}`);
    list.style.setProperty("--count", String(Math.min(LANE, rows.length)));
    rows.slice(first, first + LANE).forEach((row, at) => state.cards.push(card(state, list, row, first + at, rows.length)));
  }
}

function card(state, list, row, at, count) {
  const box = element(list, "li", `lab-card ${row.right ? "lab-right" : "lab-wrong"}`, "");
  box.tabIndex = 0;
  box.dataset.at = String(at);
  box.style.setProperty("--a", String(row.advantage));
  box.style.setProperty("--from", String((Math.min(LANE, count) - 1) / 2 - (at % LANE)));
  const text = element(box, "code", "", "");
  const stamp = element(box, "b", "lab-stamp", row.right ? "✓ right" : "✗ wrong");
  const numbers = element(box, "span", "lab-numbers", "");
  element(numbers, "span", "lab-r", `r ${numberText(row.reward)}`);
  element(numbers, "span", "lab-a", `A ${signedNumber(row.advantage)}`);
  const chance = element(box, "span", "lab-chance", "");
  element(chance, "span", "lab-share", percent(row.logp));
  const bars = element(chance, "span", "lab-bars", "");
  element(bars, "i", "lab-now", "").style.width = `${100 * Math.exp(row.logp)}%`;
  element(bars, "i", "lab-before", "").style.width = `${100 * Math.exp(row.reference_logp)}%`;
  box.setAttribute("aria-label", `Completion ${at + 1}: ${row.text}, ${row.right ? "right" : "wrong"}, reward ${numberText(row.reward)}, `
    + `advantage ${signedNumber(row.advantage)}, probability ${percent(row.logp)}, before training ${percent(row.reference_logp)}`);
  for (const event of ["onpointerenter", "onfocus", "onclick"]) box[event] = () => pick(state, at);
  return { box, text, row, stamp };
}

function pick(state, at) {  // the formula takes the numbers of one card, and both light up
  const group = state.data.groups[state.at];
  if (!group) return;
  state.picked = Math.min(at, group.completions.length - 1);
  state.cards.forEach(({ box }, index) => box.classList.toggle("lab-lit", index === state.picked));
  const row = group.completions[state.picked];
  const { formula } = state;
  formula.replaceChildren();
  const fraction = (over, under) => {
    const made = element(formula, "span", "lab-fraction", "");
    const upper = element(made, "span", "", ""), lower = element(made, "span", "", "");
    upper.append(...over); lower.append(...under);
  };
  const number = (name, text) => {
    const made = document.createElement("b");
    made.dataset.part = name;
    made.textContent = text;
    return made;
  };
  const index = () => { const made = document.createElement("sub"); made.textContent = String(state.picked + 1); return made; };
  const left = element(formula, "span", "", "");
  left.append("A", index(), " =");
  const over = document.createElement("span"); over.append("r", index(), " − mean");
  fraction([over], ["std"]);
  formula.append("=");
  if (group.std) {
    fraction([number("r", numberText(row.reward)), " − ", number("mean", numberText(group.mean))], [number("std", group.std.toFixed(3))]);
    formula.append("=");
  }
  formula.append(number("a", group.std ? signedNumber(row.advantage) : "0 (all rewards are equal)"));
  if (state.data.question.reward === "graded") {
    const parts = Object.entries(state.data.weights).map(([name, weight]) => `${weight} · ${name} ${numberText(row.parts[name])}`);
    element(formula, "span", "lab-parts", `r = ${parts.join(" + ")}`);
  }
}

function place(state, phase) {
  state.root.dataset.phase = phase;
  state.stage.setAttribute("aria-busy", String(phase !== "done"));
}

function write(state, count) {
  for (const { text, row } of state.cards) text.textContent = row.tokens.slice(0, count).join("").replace("<eos>", "");
}

function finish(state) {  // the end state, at once
  state.run += 1;
  cards(state, state.data.groups[state.at]);
  write(state, Infinity);
  place(state, "done");
  pick(state, state.picked ?? 0);
  say(state);
}

async function play(state, before) {  // `before`: the number of updates that is shown now, -1 for none of this prompt
  const run = state.run += 1, { groups, question } = state.data;
  const pause = (time) => new Promise((resolve, reject) => setTimeout(() => (run === state.run && state.root.isConnected ? resolve() : reject(new Error("another group"))), time));
  const one = before >= 0 && question.updates === before + 1;
  try {
    if (before >= 0 && question.updates > before + 1) {
      for (let at = before + 1; at < question.updates; at += 1) {
        state.at = at;
        cards(state, groups[at]); write(state, Infinity); place(state, "film"); say(state);
        await pause(PAUSE.film);
      }
    }
    if (one && groups[before]?.completions[0].logp_after !== undefined) {
      place(state, "bars");
      groups[before].completions.forEach((row, at) => {
        const box = state.cards[at]?.box;
        if (!box) return;
        box.querySelector(".lab-now").style.width = `${100 * Math.exp(row.logp_after)}%`;
        box.querySelector(".lab-share").textContent = percent(row.logp_after);
      });
      await pause(PAUSE.bars);
    }
    state.at = question.updates;
    cards(state, groups[state.at]);
    place(state, "stack");
    await pause(30);
    place(state, "write");
    await pause(PAUSE.fan);
    const longest = Math.max(...state.cards.map(({ row }) => row.tokens.length));
    for (let count = 1; count <= longest; count += 1) { write(state, count); await pause(PAUSE.token); }
    place(state, "judge");
    await pause(PAUSE.judge);
    place(state, "mean");
    await pause(PAUSE.mean);
    place(state, "done");
    pick(state, state.picked ?? 0);
    say(state);
  } catch (error) { if (error.message !== "another group") throw error; }
}

function meters(state) {
  const { measured, of, question, measuredSays } = state.data;
  state.meters.replaceChildren();
  for (const [name, title] of [["fresh", "This prompt, right"], ["held_out", "Held-out, right"]]) {
    const row = element(state.meters, "div", "lab-meter", "");
    element(row, "span", "", title);
    const bars = element(row, "span", "lab-bars", "");
    element(bars, "i", "lab-now", "").style.width = `${100 * measured[String(question.updates)][name] / of[name]}%`;
    element(bars, "i", "lab-before", "").style.width = `${100 * measured["0"][name] / of[name]}%`;
  }
  const legend = element(state.meters, "p", "", `${measuredSays} Bars: `);
  element(legend, "span", "lab-key lab-key-now", "now");
  element(legend, "span", "lab-key lab-key-before", "before training");
}

function receive(state, data) {
  const last = state.data;
  state.data = data;
  if (!state.choices.childElementCount) {
    choice(state, state.choices, "group_size", "G", data.sizes, data.sizes.map(String));
    choice(state, state.choices, "reward", "Reward", Object.keys(data.rewards), Object.values(data.rewards));
  }
  for (const input of state.choices.querySelectorAll("input")) input.checked = input.value === String(data.question[input.name.replace("lab-", "")]);
  if (!last || data.question.prompt !== last.question.prompt || data.problem !== last.problem) {
    if (!data.problem) state.input.value = data.question.prompt;
  }
  if (data.done === state.asked || !state.asked) state.root.dataset.busy = "false";
  reasons(state);
  meters(state);
  const same = (name) => last && JSON.stringify(last.question[name]) === JSON.stringify(data.question[name]);
  const isSame = ["prompt", "group_size", "reward", "seed"].every(same);
  if (isSame && same("updates") && state.at >= 0) { say(state); return; }
  const before = isSame ? state.at : -1;
  if (!isSame) state.picked = 0;
  if (isStill() || (isSame && data.question.updates < before)) { state.at = data.question.updates; finish(state); }
  else play(state, before);
}

export default function ({ data: [data], parentElement, setStateValue, setTriggerValue }) {
  let state = stages.get(parentElement);
  if (!state) stages.set(parentElement, state = build(parentElement));
  Object.assign(state, { setStateValue, setTriggerValue });
  const text = JSON.stringify(data);
  if (text !== state.text) {
    state.text = text;
    receive(state, data);
  }
  return () => { if (!parentElement.isConnected) { state.run += 1; state.unwatch(); stages.delete(parentElement); } };
}
