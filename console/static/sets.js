// Sets of pictures: the dialog that makes one, keys, images that cannot be shown, and reloading after a look.
import { send, show } from "/static/console.js";

const inField = (target) => target.closest?.("input:not([type=checkbox]):not([type=radio]), select, textarea");
const byKey = {
  n: () => document.getElementById("make")?.click(),
  u: () => document.getElementById("files")?.click(),
  b: () => document.getElementById("to-boxes")?.click(),
  r: () => document.getElementById("to-review")?.click(),
  "[": () => document.getElementById("page-before")?.click(),
  "]": () => document.getElementById("page-after")?.click(),
  ArrowLeft: () => document.getElementById("picture-before")?.click(),
  ArrowRight: () => document.getElementById("picture-after")?.click(),
  Escape: () => document.getElementById("up")?.click(),
};
document.addEventListener("keydown", (event) => {
  if (inField(event.target) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const act = byKey[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// an image that cannot be shown says why, where it was
const unshown = async (image) => {
  const box = document.createElement("span");
  box.className = `${image.className} unshown`;
  box.textContent = "cannot be shown";
  image.replaceWith(box);
  const answer = await fetch(image.src, { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer && !answer.ok) box.textContent = (await answer.json().catch(() => ({}))).error || box.textContent;
};
for (const image of document.querySelectorAll("img.thumb, figure.large img")) {
  image.addEventListener("error", () => unshown(image), { once: true });
  if (image.complete && image.naturalWidth === 0) image.src = image.src; // it failed before this script ran: once more
}

// the object under the pointer or focus is marked in the picture
for (const row of document.querySelectorAll(".crops [data-crop]")) {
  const mark = (on) => document.querySelector(`rect[data-crop="${row.dataset.crop}"]`)?.classList.toggle("pointed", on);
  for (const [name, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]]) row.addEventListener(name, () => mark(on));
}

// when a look has found something, the page is read again
const look = document.getElementById("look");
if (look?.querySelector('[data-task-state="running"]')) {
  document.body.addEventListener("htmx:afterSwap", () => {
    const task = look.querySelector("[data-task-state]");
    if (task && task.dataset.taskState !== "running" && /\d new|changed|gone|damaged/.test(task.textContent) && !document.querySelector("dialog[open]")) location.reload();
  });
}

// the dialog that makes a set shows what its kind needs
const form = document.getElementById("new-set-form");
if (form) {
  const fit = () => {
    for (const part of form.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(form.elements.kind.value);
    if (form.elements.kind.value === "folder") showFolders();
  };
  const list = document.getElementById("folders");
  const showFolders = async () => {
    let found;
    try {
      found = await send("GET", `/api/v1/folders?path=${encodeURIComponent(form.elements.folder.value)}`);
    } catch (error) {
      list.textContent = error.message;
      return;
    }
    const button = (text, path) => {
      const one = document.createElement("button");
      one.type = "button";
      one.textContent = text;
      one.addEventListener("click", () => { form.elements.folder.value = path; showFolders(); });
      return one;
    };
    const inner = found.folders.slice(0, 60).map((name) => button(name, name.startsWith("/") ? name : `${found.path}/${name}`));
    list.replaceChildren(...(found.parent ? [button("↑ up", found.parent)] : []), ...inner);
    if (!inner.length) list.append("No folders in it.");
  };
  form.elements.folder.addEventListener("change", showFolders);
  form.addEventListener("change", (event) => { if (event.target.name === "kind") fit(); });
  fit();
}

// the models to choose from are read when somebody opens the dialog
const models = document.querySelector("select[data-models]");
document.querySelector('[data-opens="edit-set"]')?.addEventListener("click", async () => {
  try {
    const { choices } = await send("GET", "/api/v1/models");
    const options = [{ id: "", name: "the default" }, ...choices].map((one) => new Option(one.name, one.id, false, one.id === models.dataset.models));
    models.replaceChildren(...options);
  } catch (error) {
    if (error.status === 0) show(error.message, "bad");
  }
}, { once: true });
