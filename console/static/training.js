// Training: a job that is watched, its curves, runs compared, and what a form needs.
import { show } from "/static/console.js";

const COLOURS = ["#2f7fd1", "#c2681a", "#2c8f5e", "#a23b8f", "#8a7a1c", "#c9403a", "#5a6fd6", "#4a8d99"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const element = (tag, text = "", attributes = {}) => {
  const one = document.createElement(tag);
  one.textContent = text;
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
};

const shown = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());

/** Say seconds as a person would. */
const inWords = (seconds) => {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
};

const plot = (title, epochs, lines) => {
  const figure = element("figure");
  figure.append(element("figcaption", title));
  const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
  const draw = () => {
    const width = Math.max(240, figure.clientWidth || 480);
    const options = {
      width, height: 240, scales: { x: { time: false } }, cursor: { y: false },
      axes: [{ ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], label: "epoch", labelSize: 18, size: 34 }, { ...axis, size: 58 }],
      series: [
        { label: "epoch" },
        ...lines.map(([label], i) => ({ label, stroke: COLOURS[i % COLOURS.length], width: 2, spanGaps: true, points: { show: epochs.length < 40, size: 5 }, dash: i >= COLOURS.length ? [6, 4] : undefined })),
      ],
    };
    return new window.uPlot(options, [epochs, ...lines.map(([, values]) => values)], figure);
  };
  return { figure, draw };
};

const numbers = (name, epochs, columns) => {
  const details = element("details");
  details.append(element("summary", `Numbers of ${name}`));
  const box = element("div", "", { class: "scroll training-numbers", tabindex: "0", role: "region", "aria-label": `Numbers of ${name}` });
  const table = element("table");
  const head = element("tr");
  head.append(element("th", "epoch"));
  const names = Object.keys(columns);
  for (const column of names) head.append(element("th", column, { class: "right" }));
  table.append(element("thead"), element("tbody"));
  table.tHead.append(head);
  epochs.forEach((epoch, row) => {
    const line = element("tr");
    line.append(element("th", String(epoch), { scope: "row" }));
    for (const column of names) line.append(element("td", shown(columns[column][row]), { class: "right" }));
    table.tBodies[0].append(line);
  });
  box.append(table);
  details.append(box);
  return details;
};

/** Draw losses and validation of each run, with a table of the same numbers. */
const drawRuns = (box, runs) => {
  const open = new Set([...box.querySelectorAll("details[open] summary")].map((one) => one.textContent));
  const parts = [];
  const waiting = [];
  for (const run of runs) {
    if (runs.length > 1) parts.push(element("h3", run.name));
    const plots = element("div", "", { class: "training-plots" });
    for (const [title, wanted] of [["loss", (c) => c.startsWith("loss")], ["held-out pictures", (c) => !c.startsWith("loss")]]) {
      const lines = Object.entries(run.columns).filter(([name]) => wanted(name));
      if (!lines.length) continue;
      const one = plot(title, run.epochs, lines);
      plots.append(one.figure);
      waiting.push(one.draw);
    }
    const table = numbers(run.name, run.epochs, run.columns);
    table.open = open.has(`Numbers of ${run.name}`);
    parts.push(plots, table);
  }
  box.replaceChildren(...parts);
  waiting.forEach((draw) => draw());
};

const panel = document.getElementById("job");
let drawn = "";
const update = (job) => {
  for (const one of document.querySelectorAll("[data-live]")) {
    if (one.dataset.live === "progress" && job.progress !== null) one.value = job.progress;
    if (one.dataset.live === "says") one.textContent = job.says;
    if (one.dataset.live === "left" && job.state === "running") {
      const share = job.progress === null ? "" : `${Math.floor(100 * job.progress)} %`;
      one.textContent = [share, job.left_s === null ? "" : `about ${inWords(job.left_s)} left (a guess)`].filter(Boolean).join(", ");
    }
    if (one.dataset.live === "log" && one.textContent !== job.log) {
      const atEnd = one.scrollTop + one.clientHeight >= one.scrollHeight - 20 || !one.textContent;
      one.textContent = job.log || "Nothing yet.";
      if (atEnd) one.scrollTop = one.scrollHeight;
    }
  }
  const curves = JSON.stringify(job.curves);
  if (job.curves.length && curves !== drawn && window.uPlot) {
    drawn = curves;
    document.getElementById("curves").hidden = false;
    drawRuns(document.querySelector("[data-curves]"), job.curves);
  }
  if (job.state !== panel.dataset.state) location.reload();
};

/** Watch a job by server-sent events; where they fail, ask again every few seconds. */
const watch = (id) => {
  const source = new EventSource(`/training/jobs/${id}/events`);
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    if (job.over) source.close();
    update(job);
  });
  source.addEventListener("gone", () => { source.close(); location.assign("/training"); });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // the browser opens it again
    const asking = setInterval(async () => {
      const answer = await fetch(`/api/v1/jobs/${id}`, { headers: { Accept: "application/json" } }).catch(() => null);
      if (!answer?.ok) return;
      const job = await answer.json();
      if (job.state !== panel.dataset.state) { clearInterval(asking); location.reload(); }
    }, 4000);
  });
};

const start = () => {
  const first = document.getElementById("live");
  if (panel && first) {
    update(JSON.parse(first.textContent));
    if (["running", "queued"].includes(panel.dataset.state)) watch(panel.dataset.job);
  }
  const compares = document.querySelector("[data-compares]");
  if (compares) compareRuns(compares);
};

/** Draw the same column of several jobs in one plot. */
const compareRuns = async (box) => {
  const ids = box.dataset.compares.split(",");
  const answers = await Promise.all(ids.map((id) => fetch(`/api/v1/jobs/${id}/curves`, { headers: { Accept: "application/json" } })
    .then((one) => (one.ok ? one.json() : { runs: [] })) // it was deleted
    .catch(() => ({ runs: [] }))));
  const byColumn = new Map();
  answers.forEach((answer, i) => {
    for (const run of answer.runs) {
      for (const [name, values] of Object.entries(run.columns)) {
        if (/^loss_/.test(name)) continue;
        if (!byColumn.has(name)) byColumn.set(name, []);
        byColumn.get(name).push({ label: `${ids[i]} ${run.name}`, epochs: run.epochs, values });
      }
    }
  });
  if (!byColumn.size) return;
  document.getElementById("curves").hidden = false;
  const plots = element("div", "", { class: "training-plots" });
  const waiting = [];
  const tables = [];
  for (const [name, lines] of byColumn) {
    const epochs = [...new Set(lines.flatMap((one) => one.epochs))].sort((a, b) => a - b);
    const aligned = lines.map((one) => [one.label, epochs.map((epoch) => { const at = one.epochs.indexOf(epoch); return at < 0 ? null : one.values[at]; })]);
    const one = plot(name, epochs, aligned);
    plots.append(one.figure);
    waiting.push(one.draw);
    tables.push(numbers(name, epochs, Object.fromEntries(aligned)));
  }
  box.replaceChildren(plots, ...tables);
  waiting.forEach((draw) => draw());
};

// the list: 2 to 6 runs can be compared
const form = document.getElementById("compare");
if (form) {
  const button = form.querySelector("button[type=submit]");
  const count = () => {
    const chosen = form.querySelectorAll("input[name=job]:checked").length;
    button.disabled = chosen < 2 || chosen > Number(button.dataset.most);
  };
  form.addEventListener("change", count);
  count();
}

// the form of a recipe shows what the recipe says
const recipe = document.getElementById("recipe");
recipe?.addEventListener("change", (event) => {
  if (event.target.name !== "recipe") return;
  for (const key of ["epochs", "batch", "lr"]) recipe.elements[key].placeholder = event.target.dataset[key];
});

document.addEventListener("click", async (event) => {
  const copier = event.target.closest?.("[data-copies]");
  if (!copier) return;
  try {
    await navigator.clipboard.writeText(document.getElementById(copier.dataset.copies).textContent);
    show("Copied");
  } catch {
    show("The browser does not let pages copy here; select the command", "bad");
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input, select, textarea, dialog")) return;
  const target = document.querySelector(`[data-key="${event.key.toLowerCase().replace(/[^a-z]/g, "")}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.href) target.click();
  else { target.focus(); target.scrollTop = target.scrollHeight; }
});

if (document.readyState === "complete") start();
else window.addEventListener("load", start); // uPlot is there by then
