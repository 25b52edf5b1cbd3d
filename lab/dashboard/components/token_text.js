// A completion token by token. Whatever a token says is set as text; colour and line under it say how its log-ratio stands.
const views = new WeakMap();

function draw(state) {
  const { tokens, limit, parts, label } = state.data;
  state.line.replaceChildren();
  state.line.setAttribute("aria-label", label);
  state.spans = tokens.map((token, at) => {
    const span = element(state.line, "span", "lab-token", token.text);
    const share = Math.min(1, Math.abs(token.ratio) / limit);
    span.classList.add(token.ratio > 0 ? "lab-more" : "lab-less");
    span.style.setProperty("--share", String(share));
    if (share < 0.03) span.classList.add("lab-same");
    if (at === parts) span.classList.add("lab-parts");
    span.onpointerenter = () => pick(state, at);
    state.line.append(document.createElement("wbr"));
    return span;
  });
  state.at = undefined;
  pick(state, parts >= 0 && parts < tokens.length ? parts : 0);
}

function pick(state, at) {
  if (!state.spans.length) return;
  state.spans[state.at]?.classList.remove("lab-picked");
  state.at = Math.max(0, Math.min(state.spans.length - 1, at));
  state.spans[state.at].classList.add("lab-picked");
  state.says.textContent = state.data.tokens[state.at].says;
}

function make(parentElement) {
  parentElement.querySelector(".lab-tokens")?.remove();
  const root = element(parentElement, "div", "lab-tokens");
  const state = { line: element(root, "div", "lab-token-line"), says: element(root, "div", "lab-token-says"), spans: [] };
  state.line.tabIndex = 0;
  state.line.setAttribute("role", "group");
  state.says.setAttribute("aria-live", "polite");
  state.line.onkeydown = (event) => {
    const to = { ArrowRight: state.at + 1, ArrowLeft: state.at - 1, Home: 0, End: state.spans.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(state, to);
  };
  return state;
}

export default function ({ data: [data], parentElement }) {
  let state = views.get(parentElement);
  if (!state) views.set(parentElement, state = make(parentElement));
  const text = JSON.stringify(data);
  if (text !== state.text) {
    Object.assign(state, { data, text });
    draw(state);
  }
  return () => { if (!parentElement.isConnected) views.delete(parentElement); };
}
