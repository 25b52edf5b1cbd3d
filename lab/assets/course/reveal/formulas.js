// Draws the formulas of the slides: text between $$ and $$, or between $ and $.
const FORMULA = /\$\$([\s\S]+?)\$\$|\$([^$\n]+(?:\n[^$\n]+)*)\$/g;
const walker = document.createTreeWalker(document.querySelector(".slides"), NodeFilter.SHOW_TEXT);
const texts = [];
while (walker.nextNode()) {
  if (walker.currentNode.data.includes("$")) texts.push(walker.currentNode);
}
for (const text of texts) {
  const parts = document.createElement("span");
  let end = 0;
  for (const found of text.data.matchAll(FORMULA)) {
    parts.append(text.data.slice(end, found.index));
    const formula = document.createElement("span");
    katex.render(found[1] ?? found[2], formula, { displayMode: found[1] !== undefined, throwOnError: false });
    parts.append(formula);
    end = found.index + found[0].length;
  }
  parts.append(text.data.slice(end));
  text.replaceWith(parts);
}
