// One chapter of the story: figures that stay in view, and steps of text beside them. The step in the middle of the window moves the figure.
// Terms light up in text, formula and figure together; a badge opens the measurement of its claim.
const chapters = new WeakMap();
const PHONE = "(max-width: 800px)";
const GLIDE_MS = 45;  // between two values of a slider that follows the text
const GLIDE_STEPS = 8;

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function stageOf(chapter, index) {  // a figure is made when its step is first shown
  const stage = chapter.stages[index];
  if (stage.end) return stage;
  const kind = stage.given.kind === "slider" ? slider_figure : step_diagram;
  stage.end = kind({ data: [stage.given.data], parentElement: stage.holder, setStateValue: (name, value) => {
    if (name === "dark") chapter.setStateValue("dark", value);
  } });
  return stage;
}

function moveStage(stage, at) {
  clearInterval(stage.gliding);
  if (stage.given.kind !== "slider") {
    stage.holder.querySelector(".lab-diagram").dispatchEvent(new CustomEvent("lab-move", { detail: at }));
    return;
  }
  const input = stage.holder.querySelector("input[type=range]");
  if (!input) return;
  const put = (value) => {
    input.value = String(value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const start = Number(input.value), count = Math.min(GLIDE_STEPS, Math.abs(at - start));
  if (calm() || count < 2) { if (at !== start) put(at); return; }
  let done = 0;
  stage.gliding = setInterval(() => {
    done += 1;
    put(Math.round(start + (at - start) * done / count));
    if (done === count) clearInterval(stage.gliding);
  }, GLIDE_MS);
}

function goTo(chapter, index) {
  if (chapter.now === index) return;
  chapter.now = index;
  chapter.root.dataset.now = String(index);
  const step = chapter.data.steps[index];
  for (const [at, part] of chapter.steps.entries()) {
    if (at === index) part.setAttribute("aria-current", "step");
    else part.removeAttribute("aria-current");
  }
  for (const [at, stage] of chapter.stages.entries()) stage.holder.hidden = at !== step.figure;
  const stage = stageOf(chapter, step.figure);
  if (step.at !== null) moveStage(stage, step.at);
}

function litRules({ key, terms }) {  // rules, not classes: they hold when a figure is drawn again
  return Object.entries(terms).map(([name, term]) => {
    const lit = `#${key}[data-lit=${JSON.stringify(name)}]`;
    const rules = [`${lit} [data-term=${JSON.stringify(name)}] { background: var(--lit); }`, `${lit} .lab-stage [data-name=${JSON.stringify(term.box)}] > rect { stroke-width: 6; }`];
    if (!term.marks.length) return rules.join(" ");
    const marks = `${lit} .lab-stage :is(${term.marks.join(", ")})`;
    return [...rules, `${marks}:is(svg *):not(text) { filter: var(--glow); }`, `${marks}:is(text) { font-weight: 700 !important; text-decoration: underline !important; }`, `${marks}:not(svg *) { background: var(--lit); }`].join(" ");
  }).join("\n");
}

function light(chapter, name, source) {
  dim(chapter);
  const term = chapter.data.terms[name];
  if (!term) return;
  chapter.root.dataset.lit = name;
  if (!source) return;
  const { note, root } = chapter;
  note.replaceChildren();
  element(note, "b", "", term.word);
  note.append(`: ${term.meaning}`);
  note.hidden = false;
  const at = source.getBoundingClientRect(), frame = root.getBoundingClientRect();
  note.style.left = `${Math.max(0, Math.min(at.left - frame.left, frame.width - note.offsetWidth))}px`;
  note.style.top = `${at.bottom - frame.top + 6}px`;
  source.setAttribute("aria-describedby", note.id);
  chapter.source = source;
}

function dim(chapter) {
  chapter.source?.removeAttribute("aria-describedby");
  chapter.source = undefined;
  chapter.note.hidden = true;
  delete chapter.root.dataset.lit;
}

function listenTo(chapter) {
  const { root } = chapter;
  const termOf = (event) => event.target.closest?.(".lab-term");
  const boxOf = (event) => {
    const name = event.target.closest?.(".lab-stage [data-name]")?.dataset.name;
    return Object.keys(chapter.data.terms).find((key) => chapter.data.terms[key].box === name);
  };
  root.addEventListener("pointerover", (event) => {
    const term = termOf(event), box = boxOf(event);
    if (term) light(chapter, term.dataset.term, term);
    else if (box) light(chapter, box);
  });
  root.addEventListener("pointerout", (event) => {
    if (event.pointerType === "mouse" && (termOf(event) || boxOf(event)) && chapter.source !== document.activeElement) dim(chapter);
  });
  root.addEventListener("focusin", (event) => {
    const term = termOf(event), step = event.target.closest(".lab-step");
    if (step) goTo(chapter, chapter.steps.indexOf(step));
    if (term) light(chapter, term.dataset.term, term);
  });
  root.addEventListener("focusout", () => dim(chapter));
  root.addEventListener("click", (event) => {  // a tap; it also focuses where the system does not
    const term = termOf(event);
    if (term) { term.focus({ preventScroll: true }); light(chapter, term.dataset.term, term); }
  });
  root.addEventListener("keydown", (event) => { if (event.key === "Escape") dim(chapter); });
}

function badge(parent, claim) {
  const box = element(parent, "div", "lab-claim");
  const quote = element(box, "p", "");
  quote.append(`The article: “${claim.sentence}” `);
  const button = element(quote, "button", "lab-badge", claim.verdict);
  button.type = "button";
  button.dataset.verdict = claim.kind;
  button.setAttribute("aria-expanded", "false");
  const measured = element(box, "div", "lab-measured");
  measured.hidden = true;
  element(measured, "p", "", claim.measurement);
  element(element(measured, "p", "", "Measured by "), "code", "", claim.command);
  button.onclick = () => {
    measured.hidden = !measured.hidden;
    button.setAttribute("aria-expanded", String(!measured.hidden));
  };
}

function watchSteps(chapter) {  // which step is in the middle of the window; on a phone, of the part under the figure
  chapter.observer?.disconnect();
  const band = matchMedia(PHONE).matches ? "-74% 0px -24% 0px" : "-45% 0px -50% 0px";
  chapter.observer = new IntersectionObserver((entries) => {
    const entry = entries.findLast((one) => one.isIntersecting);
    if (!entry || !chapter.root.isConnected) return;
    goTo(chapter, chapter.steps.indexOf(entry.target));
    const hash = `#${chapter.data.key}`;  // none for the beginning of the page
    if (location.hash !== hash && (location.hash || chapter.data.number > 1)) history.replaceState(history.state, "", hash);
  }, { rootMargin: band });
  for (const step of chapter.steps) chapter.observer.observe(step);
}

function makeChapter(parentElement, data) {
  parentElement.querySelector(".lab-chapter")?.remove();
  const root = element(parentElement, "section", "lab-chapter");
  root.id = data.key;
  element(root, "style", "", litRules(data));
  const title = element(root, "h2", "", `${data.number}. ${data.title}`);
  title.id = `${data.key}-title`;
  root.setAttribute("aria-labelledby", title.id);
  const stage = element(root, "div", "lab-stage"), column = element(root, "div", "lab-steps");
  const chapter = { root, data, column, now: undefined, note: element(root, "div", "lab-note") };
  Object.assign(chapter.note, { id: `${data.key}-note`, hidden: true });
  chapter.note.setAttribute("role", "tooltip");
  chapter.stages = data.figures.map((given) => ({ given, holder: element(stage, "div", "lab-holder-of-figure") }));
  for (const one of chapter.stages.slice(1)) one.holder.hidden = true;
  return chapter;
}

function fillSteps(chapter) {
  chapter.column.replaceChildren();
  chapter.steps = chapter.data.steps.map((given) => {
    const step = element(chapter.column, "div", "lab-step");
    step.append(...new DOMParser().parseFromString(given.html, "text/html").body.childNodes);
    for (const claim of given.claims) badge(step, claim);
    return step;
  });
}

function waitFor(chapter) {  // the first figure is made when the chapter is less than a window away
  chapter.near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    chapter.near.disconnect();
    stageOf(chapter, 0);
    watchSteps(chapter);
  }, { rootMargin: "60% 0px 60% 0px" });
  chapter.near.observe(chapter.root);
  chapter.media = matchMedia(PHONE);
  chapter.turn = () => { if (chapter.observer) watchSteps(chapter); };
  chapter.media.addEventListener("change", chapter.turn);
}

export default function ({ data: [data], parentElement, setStateValue }) {
  let chapter = chapters.get(parentElement);
  const text = JSON.stringify(data);
  if (!chapter) {
    chapters.set(parentElement, chapter = makeChapter(parentElement, data));
    chapter.text = text;
    fillSteps(chapter);
    listenTo(chapter);
    waitFor(chapter);
    if (location.hash === `#${data.key}`) requestAnimationFrame(() => chapter.root.scrollIntoView());
  }
  chapter.setStateValue = setStateValue;
  if (text !== chapter.text) {  // another theme: the figures that are there are drawn again
    Object.assign(chapter, { data, text });
    for (const [index, stage] of chapter.stages.entries()) {
      stage.given = data.figures[index];
      if (!stage.end) continue;
      stage.end = undefined;
      stageOf(chapter, index);
    }
  }
  return () => {
    if (parentElement.isConnected) return;
    chapter.near.disconnect();
    chapter.observer?.disconnect();
    chapter.media.removeEventListener("change", chapter.turn);
    for (const stage of chapter.stages) { clearInterval(stage.gliding); stage.end?.(); }
    chapters.delete(parentElement);
  };
}
