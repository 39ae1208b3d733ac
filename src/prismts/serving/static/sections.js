// Sections of a report, as elements: whatever came from data is set as text, never as markup.
import { figure } from "./figures.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const isWords = (text) => text.length > 34;

const blocks = {
  text: (block) => element("p", { text: block.text }),
  note: (block) => element("p", { class: `note ${block.level}`, text: block.text }),
  code: (block) => element("pre", { tabindex: 0 }, element("code", { text: block.text })),
  drawing: (block) => figure(block),
  facts: (block) =>
    element("dl", { class: block.large ? "facts large" : "facts" },
      ...block.items.map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", { text: value })))),
  table: (block) => {
    const strong = new Set(block.strong.map(([row, column]) => `${row},${column}`));
    const words = block.columns.map((_, c) => block.rows.some((row) => isWords(row[c] ?? "")));
    const head = element("thead", {}, element("tr", {}, ...block.columns.map((name, c) => element("th", { scope: "col", class: words[c] ? "words" : null, text: name }))));
    const body = element("tbody", {}, ...block.rows.map((row, r) =>
      element("tr", {}, ...row.map((cell, c) => c === 0
        ? element("th", { scope: "row", text: cell })
        : element("td", { class: [strong.has(`${r},${c}`) && "strong", words[c] && "words"].filter(Boolean).join(" ") || null, text: cell })))));
    const table = element("table", { class: block.lead ? "lead" : null }, head, body);
    const whole = element("div", {}, element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": block.caption || "Table" }, table));
    if (block.caption) whole.append(element("p", { class: "caption", text: block.caption }));
    return whole;
  },
};

export function sections(list, { folded = [] } = {}) {
  return list.map((section) => {
    const content = section.blocks.map((block) => blocks[block.kind](block));
    if (folded.includes(section.title)) {
      return element("details", {}, element("summary", { text: section.title }), ...content);
    }
    const title = section.title ? [element("h3", { text: section.title })] : [];
    return element("div", {}, ...title, ...content);
  });
}
