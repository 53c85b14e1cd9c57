// Axe's time grows with the elements, and nine in ten are glyphs of equations, coloured words of code and rows of
// tables that differ in nothing axe looks at. Of each kind the first three stay. Two elements are of one kind when
// they stand under the same chain of elements and have the same tags, attributes and attribute values all the way
// down; of addresses, names and sizes it counts only that they are there, and so it does of text.
() => {
  const STAY = 3;
  const FREE = /^(href|src|id|title|alt|width|height|d|x|y|rx|data-.*)$/;
  const WORDS = "span, em, strong, code, b, i";
  const BLOCKS = "tr, li, p, dl, div, svg, section, details, figure, button, a, mjx-container";
  const NAMED = "summary, a, button, label, th, caption"; // they are called what they hold

  const name = (element) => element.localName + [...element.attributes]
    .map(({ name, value }) => ` ${name}=${FREE.test(name) ? value.trim() !== "" : value}`).sort().join("");
  const shapes = new Map();
  const shape = (element) => {
    if (!shapes.has(element)) {
      const parts = [...element.childNodes].map((node) => node.nodeType === Node.ELEMENT_NODE ? shape(node)
        : node.nodeType === Node.TEXT_NODE && node.data.trim() ? "text" : "");
      shapes.set(element, `${name(element)}(${parts.join()})`);
    }
    return shapes.get(element);
  };
  const seen = new Map();
  const often = (kind) => seen.set(kind, (seen.get(kind) ?? 0) + 1).get(kind) > STAY;

  const article = document.querySelector("article") ?? document.body;
  const equations = [...document.querySelectorAll("mjx-container")];
  const widths = equations.map((equation) => equation.getBoundingClientRect().width);
  equations.slice(STAY).forEach((equation, i) => {
    equation.textContent = "equation";
    Object.assign(equation.style, { display: "inline-block", overflow: "hidden", width: `${widths[i + STAY]}px` });
    shapes.set(equation, "equation");
  });

  const chains = new Map([[article, ""]]);
  for (const element of article.querySelectorAll("*")) {
    chains.set(element, `${chains.get(element.parentElement)}>${name(element)}`);
  }
  // Words keep their text and lose their markup, from the inside out.
  for (const word of [...article.querySelectorAll(WORDS)].reverse()) {
    const plain = !word.children.length && [...word.attributes].every((attribute) => attribute.name === "class");
    if (plain && !word.closest("mjx-container") && often(chains.get(word))) word.replaceWith(...word.childNodes);
  }
  article.normalize();

  const thin = (element) => {
    for (const child of [...element.children]) {
      if (child.matches(BLOCKS) && often(chains.get(child) + shape(child))) child.remove();
      else if (!child.matches(NAMED)) thin(child);
    }
  };
  thin(article);
}
