// Draws the formulas of a page. The build leaves them as text between \( and \) or \[ and \].
for (const node of document.querySelectorAll(".arithmatex")) {
  const text = node.textContent.trim();
  katex.render(text.slice(2, -2), node, { displayMode: text.startsWith("\\["), throwOnError: false });
}
