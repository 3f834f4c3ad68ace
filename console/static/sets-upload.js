// Uploads pictures to a set: each file in a request of its own, two at a time. What is there already is not sent again,
// so an upload that broke off is resumed by choosing the same files.
import { refusal, show } from "/static/console.js";

const AT_ONCE = 2;
const TRIES = 4;
const SHOWN_BAD = 100;
const HASHED_AT_ONCE = 8;
const MAX_PICTURE_BYTES = 60 * 2 ** 20;
const setId = document.getElementById("set").dataset.set;
const part = (id) => document.getElementById(id);
const state = { waiting: [], busy: new Set(), failed: [], bytes: 0, sent: 0, added: 0, known: 0, refused: 0, hidden: 0, total: 0, stopped: false, running: false };

const HIDDEN_PICTURE = /(^|\/)\.(?!_)[^/]*\.(jpe?g|png|webp|gif|bmp|tiff?|ppm|hei[cf]|avif)$/i; // `._a.jpg` is a Mac's shadow file
const isZip = (file) => /\.zip$/i.test(file.name);
const nameOf = (file) => file.path || file.webkitRelativePath || file.name;

const add = (files) => {
  const wanted = files.filter((file) => !/(^|\/)(\.|Thumbs\.db$|desktop\.ini$)/.test(nameOf(file)));
  if (!files.length) return;
  if (!state.running) Object.assign(state, { bytes: 0, sent: 0, added: 0, known: 0, refused: 0, hidden: 0, total: 0, failed: [], stopped: false });
  state.hidden += files.filter((file) => HIDDEN_PICTURE.test(nameOf(file))).length;
  state.total += wanted.length;
  for (const file of wanted) state.bytes += file.size;
  state.waiting.push(...wanted);
  part("progress").hidden = false;
  part("upload-again").hidden = true;
  part("upload-show").hidden = true;
  if (!state.running) run();
};

const run = async () => {
  state.running = true;
  part("upload-stop").hidden = false;
  tell();
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  state.running = false;
  part("upload-stop").hidden = true;
  part("upload-again").hidden = !state.failed.length;
  tell();
  if (state.added && !state.failed.length && !state.refused && !state.hidden && !state.stopped) location.assign(`/sets/${setId}`);
  else part("upload-show").hidden = !state.added;
};

const worker = async () => {
  while (state.waiting.length && !state.stopped) {
    const batch = state.waiting.splice(0, Math.min(HASHED_AT_ONCE, Math.max(1, Math.ceil(state.waiting.length / AT_ONCE))));
    const fresh = await withoutKnown(batch);
    for (const [number, file] of fresh.entries()) {
      if (state.stopped) {
        state.waiting.push(...fresh.slice(number));
        return;
      }
      await upload(file);
    }
  }
};

/** Return the files that the set does not have; where the browser cannot hash (no TLS), all of them. */
const withoutKnown = async (files) => {
  if (!window.crypto?.subtle) return files;
  const hashes = new Map();
  for (const file of files) {
    if (isZip(file) || file.size > MAX_PICTURE_BYTES) continue;
    try {
      const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
      hashes.set(file, [...new Uint8Array(digest)].map((one) => one.toString(16).padStart(2, "0")).join(""));
    } catch { /* the file vanished: the upload says so */ }
  }
  let known = new Set();
  try {
    const response = await fetch(`/api/v1/sets/${setId}/known`, { method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify({ sha256: [...hashes.values()] }) });
    if (response.ok) known = new Set((await response.json()).sha256);
  } catch { /* the upload itself tells */ }
  return files.filter((file) => {
    if (!known.has(hashes.get(file))) return true;
    state.known += 1;
    state.sent += file.size;
    tell();
    return false;
  });
};

const upload = async (file) => {
  const row = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = nameOf(file);
  const bar = document.createElement("progress");
  bar.max = file.size || 1;
  bar.value = 0;
  bar.setAttribute("aria-label", nameOf(file));
  row.append(name, bar);
  part("uploads").prepend(row);
  for (let number = 1; ; number += 1) {
    const answer = await sendFile(file, bar);
    if (answer.status === 0 && number < TRIES && !state.stopped) {
      name.textContent = `${nameOf(file)}: the connection broke; trying again`;
      await new Promise((go) => setTimeout(go, 500 * 3 ** number));
      continue;
    }
    take(file, row, answer);
    return;
  }
};

const sendFile = (file, bar) =>
  new Promise((done) => {
    const request = new XMLHttpRequest();
    let before = 0;
    const moved = (to) => {
      state.sent += to - before;
      before = to;
      bar.value = to;
      tell();
    };
    request.open("POST", `/api/v1/sets/${setId}/pictures`);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => moved(Math.min(event.loaded, file.size)));
    request.addEventListener("loadend", () => {
      state.busy.delete(request);
      moved(request.status ? file.size : 0);
      done({ status: request.status, body: request.response || {} });
    });
    const form = new FormData();
    form.append("folders_name_items", part("folders-name-items").checked ? "true" : "false");
    form.append("files", file, nameOf(file));
    state.busy.add(request);
    request.send(form);
  });

const take = (file, row, { status, body }) => {
  const bad = (text) => {
    row.className = "bad";
    row.replaceChildren(text);
    const all = part("uploads").querySelectorAll(".bad");
    if (all.length > SHOWN_BAD) all[all.length - 1].remove();
  };
  if (status !== 200) {
    const text = status === 0 ? "the console cannot be reached" : refusal(status, body);
    state.failed.push(file);
    bad(`${nameOf(file)}: ${state.stopped && status === 0 ? "stopped" : text}`);
    if (status === 507 || status === 401 || status === 404) state.stopped = true;
  } else {
    const refused = body.files.filter((one) => one.outcome === "refused");
    state.added += body.files.filter((one) => one.outcome === "added").length;
    state.known += body.files.filter((one) => one.outcome === "known").length;
    state.refused += refused.length;
    const texts = refused.map((one) => one.text);
    if (body.stopped) {
      texts.push(body.stopped);
      state.failed.push(file);
      state.stopped = true;
    }
    if (texts.length) bad(texts.slice(0, 20).join(" · "));
    else row.remove();
  }
  tell();
};

const tell = () => {
  const bar = part("upload-bar");
  bar.max = state.bytes || 1;
  bar.value = Math.min(state.sent, state.bytes);
  const said = [`${state.added} added`];
  if (state.known) said.push(`${state.known} there already`);
  if (state.refused) said.push(`${state.refused} not usable`);
  if (state.hidden) said.push(`${state.hidden} with a dot before the name left out; rename to upload`);
  if (state.failed.length) said.push(`${state.failed.length} failed`);
  const left = state.total - state.added - state.known - state.refused - state.failed.length;
  if (state.running && left > 0) said.push(`${left} to go, ${Math.round((100 * state.sent) / (state.bytes || 1))} %`);
  part("upload-says").textContent = said.join(" · ");
};

// where files come from: the pickers, drag and drop of files and folders, and the clipboard
for (const id of ["files", "folder", "camera"]) {
  part(id).addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
}
part("upload-stop").addEventListener("click", () => {
  state.stopped = true;
  for (const request of state.busy) request.abort();
});
part("upload-again").addEventListener("click", () => {
  const again = [...state.failed, ...state.waiting];
  state.failed = [];
  state.waiting = [];
  for (const one of part("uploads").querySelectorAll(".bad")) one.remove();
  add(again);
});

const within = async (entry, path = "") => {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail)).catch(() => null);
    if (file) file.path = path + file.name;
    return file ? [file] : [];
  }
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((done, fail) => reader.readEntries(done, fail)).catch(() => []);
    if (!entries.length) return files;
    for (const one of entries) files.push(...(await within(one, `${path}${entry.name}/`)));
  }
};
const drop = part("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    const types = [...event.dataTransfer.types];
    if (types.includes("Files")) drop.classList.add("over");
    else if (!types.includes("text/uri-list")) return;
    event.preventDefault(); // also of a link, which the browser would open
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.files.length && !event.dataTransfer.items.length) return;
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? (await Promise.all(entries.map((one) => within(one)))).flat() : [...event.dataTransfer.files];
  if (files.length) add(files);
  else show("There is no file in it. Save the picture to your disk, and drop it from there.", "bad");
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files || [])];
  if (files.length) {
    event.preventDefault();
    add(files);
  }
});
window.addEventListener("beforeunload", (event) => { if (state.running) event.preventDefault(); });
