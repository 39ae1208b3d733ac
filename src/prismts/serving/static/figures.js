// Figures: plotly is loaded with the first of them, and each is drawn when it comes into view.
import { address } from "./api.js";

const touch = window.matchMedia("(pointer: coarse)").matches;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();
let templates = {};
let loading = null;

export function setTemplates(value) {
  templates = value;
}

function template() {
  const chosen = document.documentElement.dataset.theme;
  return templates[chosen || (dark.matches ? "dark" : "light")] || {};
}

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address("plotly.js");
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("plotly could not be loaded")));
    document.head.append(script);
  });
  return loading;
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      entry.target.prismDraw();
    }
  },
  { rootMargin: "300px" },
);

// names of the data reach plotly with their <, > and & escaped; in a choice of the page they are plain text again
const plain = (text) => String(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

function choice(place, menu, above) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  menu.buttons.forEach((button, i) => select.add(new Option(plain(button.label), i)));
  select.addEventListener("change", async () => (await plotly()).update(place, ...menu.buttons[select.value].args));
  label.append(plain(menu.name || "Show"), select);
  above.append(label);
}

const axes = (place) => Object.values(place._fullLayout || {}).filter((axis) => axis?._id?.startsWith?.("x") && axis.r2l && axis.type !== "category");

async function moved(place, change) {
  const library = await plotly();
  const update = {};
  for (const axis of axes(place)) {
    if (change === null) {
      update[`${axis._name}.autorange`] = true;
      continue;
    }
    const [left, right] = axis.range.map((end) => axis.r2l(end));
    const [from, to] = change(left, right);
    update[`${axis._name}.range`] = [axis.l2r(from), axis.l2r(to)];
  }
  if (Object.keys(update).length) library.relayout(place, update);
}

// by keyboard and finger too: dragging a rectangle needs a mouse
function zoom(place, above) {
  const box = document.createElement("div");
  box.className = "zoom";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Zoom along time");
  const actions = [
    ["◂", "Earlier", (l, r) => [l - (r - l) / 3, r - (r - l) / 3]],
    ["▸", "Later", (l, r) => [l + (r - l) / 3, r + (r - l) / 3]],
    ["+", "Zoom in", (l, r) => [l + (r - l) / 4, r - (r - l) / 4]],
    ["−", "Zoom out", (l, r) => [l - (r - l) / 2, r + (r - l) / 2]],
    ["All", "Show all", null],
  ];
  for (const [sign, words, change] of actions) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.title = words;
    button.setAttribute("aria-label", words);
    button.addEventListener("click", () => moved(place, change));
    box.append(button);
  }
  above.append(box);
}

export function figure(block) {
  const whole = document.createElement("figure");
  const above = document.createElement("div");
  above.className = "above";
  if (block.title) {
    const title = document.createElement("h4");
    title.textContent = block.title;
    above.append(title);
  }
  const place = document.createElement("div");
  place.className = "drawing";
  place.style.minHeight = `${block.layout.height || 360}px`;
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", [block.title, block.caption].filter(Boolean).join(". ") || "Figure");
  const layout = { ...block.layout };
  (layout.updatemenus || []).forEach((menu) => choice(place, menu, above));
  delete layout.updatemenus;
  const lines = block.data.some((trace) => (trace.type || "scatter") === "scatter" && String(trace.mode || "lines").includes("lines"));
  const many = block.data.some((trace) => (trace.x?.length ?? 0) > 20 || (trace.x?.bdata?.length ?? 0) > 100);
  if (lines && many) zoom(place, above);
  whole.append(above, place);
  if (block.caption || block.note) {
    const caption = document.createElement("figcaption");
    caption.textContent = block.caption;
    if (block.note) {
      const note = document.createElement("strong");
      note.textContent = ` ${block.note}`;
      caption.append(note);
    }
    whole.append(caption);
  }
  place.prismDraw = async () => {
    layout.template = template();
    layout.autosize = true;
    if (touch) layout.dragmode = false; // a finger on a figure scrolls the page
    let library;
    try {
      library = await plotly();
    } catch {
      place.textContent = "The figure could not be drawn: plotly was not found.";
      return;
    }
    if (!place.isConnected) return;
    await library.newPlot(place, block.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // none that would send data anywhere
    });
    drawn.add(place);
    place.dataset.drawn = "yes";
  };
  seen.observe(place);
  return whole;
}

export async function repaint() {
  for (const place of drawn) {
    if (!place.isConnected) drawn.delete(place);
    else (await plotly()).relayout(place, { template: template() });
  }
}

dark.addEventListener("change", repaint);
