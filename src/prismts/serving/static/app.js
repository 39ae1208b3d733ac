// The page: what the server says of data and jobs becomes what is seen, and what is done becomes requests.
import { address, get, post, upload } from "./api.js";
import { repaint, setTemplates } from "./figures.js";
import { element, sections } from "./sections.js";

const by = (id) => document.getElementById(id);
const TASKS = {
  forecast: ["Forecast", "What comes next, with intervals; scored on the end of the table, which training does not see."],
  classify: ["Classify", "Which class a case belongs to. Needs labeled cases: a .ts file, an .npz with X and y, or a long table with a column of classes."],
  detect: ["Detect", "Which steps are not as usual, and which channels are to blame. No labels are needed."],
  impute: ["Impute", "What stood in the gaps, learned from the table itself."],
  embed: ["Embed", "A vector for each series, or for each window of one, learned without labels, and a map of them."],
};
const FOLDED = ["Channels", "Data", "How this was made", "The detector", "Probabilities"];
const page = { about: null, state: null, shownData: null, shownResult: null, columnsOf: null, wanted: null, timer: null };

function say(words) {
  if (by("live").textContent !== words) by("live").textContent = words;
}

function complain(place, error) {
  place.replaceChildren(element("p", { class: "note alarm", text: error.message || String(error) }));
}

// ---- theme

const themes = ["auto", "light", "dark"];
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  by("theme").textContent = `Theme: ${name}`;
  try {
    localStorage.setItem("prism-theme", name);
  } catch { /* a browser that keeps nothing is fine */ }
  repaint();
}
by("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "auto";
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});
try {
  const kept = localStorage.getItem("prism-theme");
  if (themes.includes(kept)) setTheme(kept);
} catch { /* as above */ }

// ---- data

async function take(file) {
  by("problem").replaceChildren();
  if (page.about && file.size > page.about.most_bytes) {
    // said here, because a server that refuses early breaks the upload off
    return complain(by("problem"), `${file.name} is larger than ${page.about.limits.file}, the most that is taken here. Save it as .parquet, or work on it with the command: prism check FILE.`);
  }
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  by("reading").replaceChildren(element("p", { class: "hint", text: `Uploading ${file.name} …` }), bar);
  say(`Uploading ${file.name}`);
  try {
    await upload(file, (share) => (bar.value = share));
  } catch (error) {
    by("reading").replaceChildren();
    complain(by("problem"), error);
  }
  by("file").value = "";
  await refresh();
}

by("file").addEventListener("change", () => by("file").files[0] && take(by("file").files[0]));
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget === null && by("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  by("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});

by("demo").addEventListener("submit", async (event) => {
  event.preventDefault();
  by("problem").replaceChildren();
  const [kind, name] = JSON.parse(by("demo-choice").value);
  try {
    await post("api/data", { [kind]: name });
  } catch (error) {
    complain(by("problem"), error);
  }
  await refresh();
});

by("columns-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  by("problem").replaceChildren();
  const form = event.target;
  const values = [...form.querySelectorAll("#values input:checked")].map((box) => box.value);
  const options = { values };
  for (const name of ["time", "series", "label", "frequency", "duplicates"]) options[name] = form.elements[name].value;
  try {
    await post("api/columns", options);
  } catch (error) {
    complain(by("problem"), error);
  }
  await refresh();
});

function showColumns(data) {
  const columns = data?.progress?.columns;
  by("columns").hidden = !columns || !data.is_file;
  if (!columns || page.columnsOf === data.number) return;
  page.columnsOf = data.number;
  const form = by("columns-form");
  for (const name of ["time", "series", "label"]) {
    const choices = columns.map((column) => new Option(column.name, column.name));
    form.elements[name].replaceChildren(new Option("found by itself", ""), ...choices);
    if (name !== "time") form.elements[name].options[0].textContent = "none";
    form.elements[name].value = data.options[name] || "";
  }
  form.elements.duplicates.value = data.options.duplicates || "refuse";
  form.elements.frequency.value = data.options.frequency || "";
  by("values").replaceChildren(...columns.map((column) => {
    const box = element("input", { type: "checkbox", value: column.name });
    box.checked = (data.options.values || []).includes(column.name);
    return element("label", { class: "check" }, box, ` ${column.name}`);
  }));
}

async function showData(data) {
  showColumns(data);
  if (!data) return;
  const busy = data.state === "waiting" || data.state === "running";
  if (busy) {
    const stage = data.progress.stage || "waiting";
    by("reading").replaceChildren(element("p", { class: "hint", text: `${data.shown}: ${stage} …` }), element("progress", { "aria-label": "Reading" }));
    if (page.shownData !== null) {
      page.shownData = null;
      by("look-body").replaceChildren(element("p", { class: "empty", text: "Reading …" }));
    }
    say(`Reading ${data.shown}`);
    return;
  }
  const mark = `${data.number} ${data.state}`;
  if (page.shownData === mark) return;
  page.shownData = mark;
  if (data.state !== "done") {
    by("reading").replaceChildren();
    if (data.state === "failed") complain(by("problem"), data.error);
    by("look-body").replaceChildren(element("p", { class: "empty", text: "Nothing was read." }));
    if (data.progress.columns) by("columns").open = true;
    return;
  }
  by("problem").replaceChildren();
  by("reading").replaceChildren(element("p", { class: "hint", text: `Read: ${data.shown}. Another table takes its place; models stay.` }));
  by("look-body").replaceChildren(...sections(await get(`api/jobs/${data.number}/sections`), { folded: FOLDED }));
  say(`${data.shown} was read. See what was found, then train a model.`);
  propose(data.proposal);
}

// ---- what to train

const form = by("train-form");
const chosen = () => form.elements.task.value;

function propose(proposal) {
  form.elements.horizon.value = proposal.horizon;
  form.elements.context_length.value = proposal.context_length;
  page.wanted = proposal;
  const radio = form.querySelector(`input[value="${proposal.task}"]`);
  if (radio) radio.checked = true;
  fillModels();
}

function fillModels() {
  const task = chosen();
  if (!task || !page.about) return;
  const { models, settings } = page.about.tasks[task];
  const before = form.elements.model.value;
  form.elements.model.replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  if (models.some((model) => model.name === before)) form.elements.model.value = before;
  form.elements.setting.replaceChildren(...settings.map((one) => new Option(one.name, one.name)));
  by("task-hint").textContent = TASKS[task][1];
  form.elements.validation.value = task === "forecast" ? 0.1 : 0.2;
  if (task === "impute") form.elements.context_length.value = Math.min(96, Math.max(8, Math.floor((page.wanted?.n_steps || 400) / 4)));
  else if (page.wanted) form.elements.context_length.value = page.wanted.context_length;
  showFields();
}

function showFields() {
  const task = chosen();
  const { models, settings } = page.about.tasks[task];
  const model = models.find((one) => one.name === form.elements.model.value) || models[0];
  const setting = settings.find((one) => one.name === form.elements.setting.value);
  by("model-hint").textContent = model.title;
  by("setting-hint").textContent = setting ? setting.title : "";
  const open = new Set([task]);
  if (model.trained && !(task === "detect" && form.elements.setting.value === "default")) open.add("trained");
  if (model.trained && settings.length) open.add("recipe");
  for (const field of form.querySelectorAll("[data-for]")) {
    field.hidden = !field.dataset.for.split(" ").some((name) => open.has(name));
  }
}

form.addEventListener("change", (event) => {
  if (event.target.name === "task") fillModels();
  else showFields();
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  by("train-problem").replaceChildren();
  const wish = { task: chosen(), model: form.elements.model.value, intervals: form.elements.intervals.checked };
  for (const field of ["horizon", "context_length", "epochs", "seed", "validation", "test", "false_alarm_rate"]) {
    const input = form.elements[field];
    if (input.closest("[hidden]")) continue;
    if (input.value.trim() === "" && !input.validity.badInput) {
      if (field === "epochs") continue;
      return complain(by("train-problem"), `${input.closest("label").firstChild.textContent.trim()}: a number is missing.`);
    }
    if (input.validity.badInput) return complain(by("train-problem"), `${input.closest("label").firstChild.textContent.trim()} is a number.`);
    wish[field] = Number(input.value);
  }
  if (!form.elements.setting.closest("[hidden]") && form.elements.setting.value) wish.setting = form.elements.setting.value;
  try {
    const job = await post("api/train", wish);
    say(`${job.title}: in the queue`);
  } catch (error) {
    complain(by("train-problem"), error);
  }
  await refresh();
});

// ---- jobs

const STATES = { waiting: "waiting", running: "running", done: "done", failed: "failed", stopped: "stopped" };

function time(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function curve(history) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "curve");
  svg.setAttribute("viewBox", "0 0 100 50");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Losses by epoch");
  const names = [["train_loss", "train"], ["val_loss", "val"]];
  for (const [key, kind] of names) {
    const points = history.map((entry, i) => [i, entry[key]]).filter(([, y]) => Number.isFinite(y));
    const [low, high] = [Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y))];
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const places = points.map(([i, y]) => `${(100 * i) / Math.max(1, history.length - 1)},${46 - (42 * (y - low)) / (high - low || 1)}`);
    line.setAttribute("points", places.join(" "));
    line.setAttribute("class", kind);
    svg.append(line);
  }
  return svg;
}

function told(job) {
  const p = job.progress;
  if (job.state === "waiting") return job.kind === "train" ? "Waits for the job before it." : "Waits.";
  if (job.state === "stopped") return "Stopped. Train with the same settings again, and it goes on after the last finished epoch.";
  if (job.state === "done") return `Took ${time(job.seconds)}.`;
  if (job.state !== "running") return "";
  if (p.stage !== "training") return `${p.stage ? p.stage[0].toUpperCase() + p.stage.slice(1) : "Starting"}${p.what && p.stage === "scoring" ? ` ${p.what}` : ""} …`;
  const parts = [p.part > 1 ? `${p.what}` : null, `epoch ${p.epoch} of ${p.n_epochs}`];
  const losses = p.history.filter((entry) => Number.isFinite(entry.val_loss));
  if (losses.length) parts.push(`validation ${losses.at(-1).val_loss.toFixed(4)}`);
  if (p.seconds_left !== null && p.seconds_left !== undefined) parts.push(`about ${time(p.seconds_left)} left`);
  return parts.filter(Boolean).join(" · ");
}

function showJob(item, job) {
  const busy = job.state === "running" || job.state === "waiting";
  if (!item.parts) {
    const parts = (item.parts = {
      title: element("h3"), pill: element("span", { class: "pill" }), bar: element("progress", { max: 1, "aria-label": "Progress of the training" }),
      words: element("p"), error: element("p", { class: "note alarm", hidden: true }), plot: element("div"),
      stop: element("button", { type: "button", class: "small", text: "Stop" }),
      show: element("button", { type: "button", class: "small", text: "Show" }),
    });
    parts.title.textContent = `${job.number}. ${job.title}`;
    parts.stop.setAttribute("aria-label", `Stop ${job.title}`);
    parts.show.setAttribute("aria-label", `Show ${job.title}`);
    parts.stop.addEventListener("click", async () => {
      parts.stop.disabled = true;
      try {
        await post(`api/jobs/${job.number}/stop`, {});
        say(`${job.title} was stopped`);
      } catch (error) {
        complain(by("train-problem"), error);
      }
      await refresh();
    });
    parts.show.addEventListener("click", () => {
      showResult(job.number);
      by("results-title").focus();
      by("results").scrollIntoView();
    });
    item.append(element("div", { class: "job-head" }, parts.title, parts.pill, parts.stop, parts.show), parts.bar, parts.words, parts.plot, parts.error);
  }
  const { pill, bar, words, error, plot, stop, show } = item.parts;
  pill.textContent = STATES[job.state];
  pill.className = `pill ${job.state}`;
  bar.hidden = !busy;
  if (job.state === "running" && job.progress.stage === "training") bar.value = job.progress.done || 0;
  else bar.removeAttribute("value");
  words.textContent = told(job);
  stop.hidden = !busy;
  show.hidden = job.state !== "done";
  error.hidden = job.state !== "failed";
  error.textContent = job.error;
  const history = job.progress.history || [];
  plot.hidden = job.state === "done" || history.length < 2;
  if (!plot.hidden && plot.dataset.n !== String(history.length)) {
    plot.dataset.n = history.length;
    const key = element("p", {}, element("span", { class: "key" }), "training  ", element("span", { class: "key val" }), "validation, each on its own scale");
    plot.replaceChildren(curve(history), key);
  }
}

const items = new Map();
let announced = new Map();
function showJobs(jobs) {
  for (const job of jobs) {
    if (!items.has(job.number)) {
      const item = element("li", { class: "job" });
      items.set(job.number, item);
      by("jobs").prepend(item);
    }
    showJob(items.get(job.number), job);
    const p = job.progress;
    const mark = job.state === "running" ? (p.stage === "training" ? `epoch ${p.epoch} of ${p.n_epochs}` : p.stage || "") : job.state;
    if (announced.get(job.number) !== mark) {
      announced.set(job.number, mark);
      if (mark) say(job.state === "failed" ? `${job.title} failed: ${job.error}` : `${job.title}: ${mark}`);
      if (job.state === "done" && page.settled) showResult(job.number);
    }
  }
}

// ---- results

const FILES = { "forecast.csv": "Forecast (CSV)", "classes.csv": "Classes (CSV)", "anomalies.csv": "Scores (CSV)", "filled.csv": "Filled table (CSV)", "vectors.csv": "Vectors (CSV)", "model.zip": "Model folder (ZIP)", "report.html": "Report (HTML)" };

function showModels(jobs) {
  const done = jobs.filter((job) => job.state === "done");
  const mark = done.map((job) => job.number).join();
  if (by("models").dataset.mark !== mark) {
    by("models").dataset.mark = mark;
    by("models").replaceChildren(...done.map((job) => {
      const small = (job.result.headline || []).map(([name, value]) => `${name} ${value}`).join(" · ") || job.kind;
      const button = element("button", { type: "button", "data-number": job.number, "aria-pressed": "false" }, `${job.number}. ${job.result.title}`, element("small", { text: small }));
      button.addEventListener("click", () => showResult(job.number));
      return button;
    }));
    const trained = done.filter((job) => job.kind === "train" && job.asked.task !== "embed");
    by("compare").hidden = trained.length < 2;
    const [a, b] = ["a", "b"].map((which) => {
      const select = by("compare").elements[which];
      const before = select.value;
      select.replaceChildren(...trained.map((job) => new Option(`${job.number}. ${job.result.title}`, job.number)));
      select.value = trained.some((job) => String(job.number) === before) ? before : "";
      return select;
    });
    if (trained.length > 1 && (!a.value || !b.value || a.value === b.value)) {
      a.value = String(trained.at(-2).number);
      b.value = String(trained.at(-1).number);
    }
  }
  for (const button of by("models").children) button.setAttribute("aria-pressed", String(Number(button.dataset.number) === page.shownResult));
}

async function showResult(number) {
  if (page.shownResult === number) return;
  page.shownResult = number;
  const job = page.state.jobs.find((one) => one.number === number);
  let content;
  try {
    content = await get(`api/jobs/${number}/sections`);
  } catch (error) {
    return complain(by("result-body"), error);
  }
  const links = job.result.files.map((name) => element("a", { class: "button", href: address(`api/jobs/${number}/files/${name}`), download: true, text: FILES[name] || name }));
  by("result-body").replaceChildren(
    element("h3", { text: `${number}. ${job.result.title}` }),
    element("div", { class: "downloads", role: "group", "aria-label": "Downloads" }, ...links),
    ...sections(content, { folded: FOLDED }),
  );
  showModels(page.state.jobs);
  step();
}

by("compare").addEventListener("submit", async (event) => {
  event.preventDefault();
  by("compare-problem").replaceChildren();
  const { a, b } = event.target.elements;
  try {
    await post("api/compare", { a: Number(a.value), b: Number(b.value) });
  } catch (error) {
    complain(by("compare-problem"), error);
  }
  await refresh();
});

// ---- what to do next

function step() {
  const { data, jobs, ready } = page.state;
  const hasData = data?.state === "done";
  const busy = jobs.some((job) => job.state === "running" || job.state === "waiting");
  const trained = jobs.some((job) => job.state === "done");
  const words = !ready ? ["", "Getting ready: the library is loading. You can drop a table already."]
    : !data ? ["Begin: ", "drop a table, or pick a demo data set."]
    : data.state === "failed" ? ["Next: ", "correct the file, or choose its columns below, and read it again."]
    : !hasData ? ["", "Reading the table …"]
    : busy ? ["", "Working. You may stop it, or go on looking at the data."]
    : trained ? ["Next: ", "look at the results, download them, or train another model to compare."]
    : ["Next: ", "see what was found, choose a task and a model, then train."];
  by("next").replaceChildren(element("strong", { text: words[0] }), words[1]);
  const done = [hasData, hasData, trained, false];
  const now = !hasData ? 0 : trained ? 3 : 2;
  [...by("steps").querySelectorAll("a")].forEach((link, i) => {
    link.className = done[i] && i !== now ? "done" : "";
    if (i === now) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  });
  by("train-button").disabled = !hasData || !ready;
  by("train-why").textContent = hasData ? (busy ? "It will wait for the job that is running." : "") : "Read a table first.";
  by("train-why").hidden = !by("train-why").textContent;
}

// ---- the loop

let asking = null;
async function refresh() {
  asking ??= (async () => {
    clearTimeout(page.timer);
    try {
      page.state = await get("api/state");
    } catch (error) {
      page.offline = true;
      complain(by("problem"), error);
      page.timer = setTimeout(refresh, 5000);
      return;
    }
    if (page.offline) {
      page.offline = false;
      by("problem").replaceChildren();
    }
    const { data, jobs, ready, problem } = page.state;
    if (problem) complain(by("problem"), problem);
    try {
      await showData(data);
      showJobs(jobs);
      showModels(jobs);
    } catch (error) {
      complain(by("problem"), error);
    }
    step();
    if (!page.settled) {
      page.settled = true;
      const last = jobs.filter((job) => job.state === "done").at(-1);
      if (last) showResult(last.number);
    }
    const busy = [...jobs, ...(data ? [data] : [])].some((job) => job.state === "running" || job.state === "waiting");
    if (busy || !ready) page.timer = setTimeout(refresh, 400);
  })().finally(() => (asking = null));
  await asking;
}

function showAbout() {
  const { tasks, datasets, simulated, limits, endings, templates } = page.about;
  setTemplates(templates);
  by("tasks").replaceChildren(...Object.keys(TASKS).filter((task) => tasks[task]).map((task, i) => {
    const radio = element("input", { type: "radio", name: "task", value: task });
    radio.checked = i === 0;
    return element("label", { class: "task" }, radio, element("span", { text: TASKS[task][0] }));
  }));
  by("file").setAttribute("accept", endings.join(","));
  by("file-hint").textContent = `${endings.join(", ")} · time down the rows, one column per channel · at most ${limits.file}, ${limits.columns} columns, ${limits.values} values`;
  const group = (name, options) => {
    const made = document.createElement("optgroup");
    made.label = name;
    made.append(...options);
    return made;
  };
  const groups = [group("Simulated", simulated.map((one) => new Option(`${one.name}: ${one.description}`, JSON.stringify(["simulated", one.name]))))];
  for (const task of ["forecast", "classify", "detect", "other"]) {
    const mine = datasets.filter((one) => one.task === task);
    if (mine.length) groups.push(group(`On this machine: ${task}`, mine.map((one) => new Option(one.name, JSON.stringify(["dataset", one.name])))));
  }
  by("demo-choice").replaceChildren(...groups);
  by("demo-choice").disabled = false;
  by("demo").querySelector("button").disabled = false;
  fillModels();
  if (page.state?.data?.state === "done") propose(page.state.data.proposal);
}

await refresh();
try {
  page.about = await get("api/about");
  showAbout();
} catch (error) {
  complain(by("problem"), error);
}
await refresh();
