// The editor of boxes. The picture with its boxes comes from the API and is saved there; edits that are not saved yet
// lie in localStorage, and come back after a closed tab.

import { Pending, send, show } from "./console.js";
import { Canvas, place } from "./boxes_canvas.js";

const root = document.getElementById("boxes");
const at = (id) => document.getElementById(`boxes-${id}`);
const setId = Number(root.dataset.set);
const mayEdit = root.dataset.mayEdit === "yes";
const categories = JSON.parse(root.dataset.categories);
const LEAST_PX = 1;
const TOGETHER_MS = 800; // moves of one box in a row are one step of undo
const FRESH_MS = 30000; // a picture that was read ahead

let picture = null; // as the server knows it
let boxes = [];
let selected = null; // key
let theirs = []; // boxes of somebody else, where the two differ
let undone = [];
let done = [];
let lastMove = { key: null, at: 0 };
let opening = 0;
let keys = 0;
const ahead = new Map();
const coming = new Pending(); // pictures that are saved or read; until then nothing edits the one on screen

// The state of the picture ------------------------------------------------------------------------------------------

const draftKey = (id) => `finesight-boxes/${id}`;
const plain = () => boxes.map(({ key, isProposed, ...one }) => one);
const stored = (values) =>
  values.boxes.map(({ box_px: box, ...one }) => ({ ...one, box: [...box] }));
const keyed = (listed) => {
  const isProposed = (one) => picture.state === "proposed" && one.source !== "human";
  return listed.map((one) => ({ ...one, key: `b${(keys += 1)}`, isProposed: isProposed(one) }));
};
const isChanged = () => picture !== null && JSON.stringify(plain()) !== JSON.stringify(stored(picture));
const find = (key) => boxes.find((one) => one.key === key);
const numberOf = (key) => boxes.findIndex((one) => one.key === key) + 1;

const keepDraft = () => {
  if (coming.isEmpty) writeDraft();
};

const writeDraft = () => {
  try {
    if (isChanged()) {
      const draft = { version: picture.version, boxes: plain(), at: Date.now() };
      localStorage.setItem(draftKey(picture.id), JSON.stringify(draft));
    } else localStorage.removeItem(draftKey(picture.id));
  } catch { /* the browser keeps nothing; saving still works */ }
};

const readDraft = (id) => {
  try {
    const draft = JSON.parse(localStorage.getItem(draftKey(id)));
    return Array.isArray(draft?.boxes) ? draft : null;
  } catch {
    return null;
  }
};

let saying;
const say = (text) => {
  clearTimeout(saying);
  saying = setTimeout(() => { at("live").textContent = text; }, 120);
};

// Drawing -----------------------------------------------------------------------------------------------------------

const owner = {
  get mayEdit() { return mayEdit && coming.isEmpty; },
  get selected() { return selected; },
  boxOf: (key) => find(key).box,
  /** The smallest box below a point. */
  hit: ([x, y]) => {
    const below = boxes.filter(({ box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    return below.sort((a, b) => area(a) - area(b))[0]?.key ?? null;
  },
  select: (key) => select(key),
  begin: () => remember(),
  change: (key, box) => {
    if (!find(key)) return; // removed by a key while it was dragged
    find(key).box = clamped(box);
    touch(find(key));
    draw();
  },
  draw: (box) => {
    const one = newBox(clamped(box));
    draw();
    return one.key;
  },
  end: (key) => {
    if (key !== null && find(key)) say(`Box ${numberOf(key)}: ${place(find(key).box)}`);
    if (key !== null) canvas.focus(key);
    keepDraft();
  },
  viewed: () => draw(),
};

const canvas = new Canvas(at("svg"), owner);

function clamped([x0, y0, x1, y1]) {
  const [w, h] = [picture.width, picture.height];
  const left = Math.min(Math.max(0, x0), w - LEAST_PX);
  const top = Math.min(Math.max(0, y0), h - LEAST_PX);
  return [left, top, Math.min(w, Math.max(x1, left + LEAST_PX)), Math.min(h, Math.max(y1, top + LEAST_PX))];
}

function draw() {
  if (!picture) return;
  canvas.draw(boxes, selected, theirs);
  const rows = boxes.map((one, index) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", one.key === selected);
    button.textContent = `${index + 1} ${one.label || one.item || one.category || "object"}`;
    const where = document.createElement("span");
    where.className = "where";
    where.textContent = `${Math.round(one.box[2] - one.box[0])} × ${Math.round(one.box[3] - one.box[1])}`;
    button.append(where);
    button.addEventListener("click", () => { select(one.key); canvas.focus(one.key); });
    row.append(button);
    return row;
  });
  const holder = at("list");
  const focused = [...holder.querySelectorAll("button")].indexOf(document.activeElement);
  holder.replaceChildren(...rows);
  if (focused >= 0) holder.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  const one = find(selected);
  at("selected").hidden = !one;
  const field = at("class");
  if (one && field && document.activeElement !== field) {
    field.value = one.category || "";
    field.disabled = one.decision !== "open";
  }
  if (at("undo")) at("undo").disabled = !done.length;
}

const head = () => {
  at("name").textContent = picture.name;
  const state = { none: "no boxes yet", proposed: "proposed", confirmed: "confirmed", whole: "whole picture" };
  at("state").textContent = state[picture.state] || picture.state;
  at("state").className = `badge ${picture.state === "confirmed" ? "good" : ""}`;
  const doubt = picture.state === "proposed" ? `uncertainty ${picture.uncertainty.toFixed(2)}` : "";
  at("why").textContent = [doubt, picture.why].filter(Boolean).join(": ");
  at("counts").textContent = `${picture.waiting.toLocaleString()} to check, ${picture.confirmed.toLocaleString()} confirmed`;
  at("svg").setAttribute("aria-label", `Picture ${picture.name}, ${boxes.length} boxes`);
};

// Changes -----------------------------------------------------------------------------------------------------------

function select(key) {
  if (selected === key) return;
  selected = key;
  if (key !== null) canvas.reveal(find(key).box);
  draw();
}

/** Keep the state before a change, for undo. */
function remember(key = null) {
  const now = Date.now();
  if (key !== null && lastMove.key === key && now - lastMove.at < TOGETHER_MS) {
    lastMove.at = now;
    return;
  }
  lastMove = { key, at: now };
  done.push(JSON.stringify({ boxes, selected }));
  if (done.length > 200) done.shift();
  undone = [];
}

function restore(from, to) {
  if (!from.length) return;
  to.push(JSON.stringify({ boxes, selected }));
  ({ boxes, selected } = JSON.parse(from.pop()));
  lastMove = { key: null, at: 0 };
  draw();
  if (selected !== null && find(selected)) canvas.focus(selected);
  say(from === done ? "Undone" : "Done again");
  keepDraft();
}

function touch(one) {
  Object.assign(one, { source: "human", score: 1, isProposed: false });
}

function newBox(box) {
  const last = boxes.findLast?.((one) => one.category)?.category;
  const category = categories.length === 1 ? categories[0] : last || null;
  const about = { source: "human", score: 1, category, item: null, label: null, decision: "open" };
  const one = { id: null, ...about, box, key: `b${(keys += 1)}`, isProposed: false };
  boxes.push(one);
  selected = one.key;
  return one;
}

const addBox = () => {
  remember();
  const one = newBox(clamped(canvas.middle()));
  draw();
  canvas.focus(one.key);
  say(`New box ${boxes.length}: ${place(one.box)}. Move it with the arrow keys, resize it with Shift.`);
  keepDraft();
};

const remove = () => {
  const number = numberOf(selected);
  if (!number) return;
  remember();
  boxes.splice(number - 1, 1);
  const next = boxes[Math.min(number - 1, boxes.length - 1)]?.key ?? null;
  selected = next;
  draw();
  canvas.focus(next);
  say(`Box ${number} removed; ${boxes.length} left`);
  keepDraft();
};

/** Move a box or two of its edges: edge "" moves it, "far" is right and bottom, "near" is left and top. */
const nudge = (dx, dy, edge) => {
  const one = find(selected);
  if (!one) return;
  remember(one.key);
  let [x0, y0, x1, y1] = one.box;
  if (edge === "far") [x1, y1] = [Math.max(x0 + LEAST_PX, x1 + dx), Math.max(y0 + LEAST_PX, y1 + dy)];
  else if (edge === "near") [x0, y0] = [Math.min(x1 - LEAST_PX, x0 + dx), Math.min(y1 - LEAST_PX, y0 + dy)];
  else {
    const mx = Math.min(Math.max(dx, -x0), picture.width - x1);
    const my = Math.min(Math.max(dy, -y0), picture.height - y1);
    [x0, y0, x1, y1] = [x0 + mx, y0 + my, x1 + mx, y1 + my];
  }
  one.box = clamped([x0, y0, x1, y1]);
  touch(one);
  canvas.reveal(one.box);
  draw();
  say(`Box ${numberOf(one.key)}: ${place(one.box)}`);
  keepDraft();
};

const setClass = (name) => {
  const one = find(selected);
  if (!coming.isEmpty || !one || one.category === name) return;
  if (one.decision !== "open") {
    show("This object has a name already. Change it in the review.", "bad");
    return;
  }
  if (name === null && one.id !== null && one.category) {
    show("Give the box another class, or decide in the review.", "bad");
    return;
  }
  remember();
  Object.assign(one, { category: name, item: null, label: null });
  draw();
  say(`Box ${numberOf(one.key)} is ${name || "without a class"}`);
  keepDraft();
};

// Pictures ----------------------------------------------------------------------------------------------------------

const imageOf = (values) => `/api/v1/pictures/${values.id}/image?v=${values.sha256.slice(0, 16)}`;
const trailKey = `finesight-trail/${setId}`;
const trail = () => {
  try {
    return JSON.parse(sessionStorage.getItem(trailKey)) || { ids: [], here: -1 };
  } catch {
    return { ids: [], here: -1 };
  }
};
const follow = (id) => {
  const { ids, here } = trail();
  if (ids[here] === id) return;
  const kept = [...ids.slice(Math.max(0, here - 200), here + 1), id];
  sessionStorage.setItem(trailKey, JSON.stringify({ ids: kept, here: kept.length - 1 }));
};

const read = async (id) => {
  const known = ahead.get(id);
  ahead.delete(id);
  if (known && Date.now() - known.at < FRESH_MS) return known.values;
  return send("GET", `/api/v1/boxes/pictures/${id}`);
};

const readAhead = async (id) => {
  if (!id || ahead.has(id)) return;
  try {
    const values = await send("GET", `/api/v1/boxes/pictures/${id}`);
    ahead.set(id, { values, at: Date.now() });
    new Image().src = `${imageOf(values)}&px=1600`;
  } catch { /* it is read when it is shown */ }
};

const open = (id, isInTrail = false) => coming.add(opened(id, isInTrail));

const opened = async (id, isInTrail = false) => {
  let values;
  const wanted = (opening += 1);
  try {
    values = await read(id);
  } catch (error) {
    if (error.status === 404 && picture) finish(); // deleted meanwhile: another one waits, or none
    else show(error.message, "bad");
    return;
  }
  if (wanted !== opening) return; // another picture was asked for meanwhile
  picture = values;
  boxes = keyed(stored(values));
  [selected, theirs, done, undone] = [null, [], [], []];
  const draft = mayEdit ? readDraft(id) : null;
  at("draft").hidden = at("conflict").hidden = true;
  canvas.show(values, imageOf(values));
  if (draft) {
    boxes = keyed(draft.boxes);
    if (draft.version === values.version) at("draft").hidden = !isChanged();
    else conflict("These boxes were changed while your edits were not saved.");
  }
  for (const part of ["svg", "panel"]) at(part).toggleAttribute("hidden", false);
  at("done").hidden = true;
  head();
  draw();
  if (!isInTrail) follow(id);
  history.replaceState(null, "", `?picture=${id}`);
  if (!document.activeElement || document.activeElement === document.body || root.contains(document.activeElement)) {
    at("svg").focus({ preventScroll: true });
  }
  say(`Picture ${values.name}, ${boxes.length} boxes, ${values.waiting} to check`);
  readAhead(values.next);
};

const finish = () => {
  for (const part of ["svg", "panel"]) at(part).toggleAttribute("hidden", true);
  picture = null;
  location.assign(`/boxes/${setId}`); // says what can be done now
};

const previous = () => {
  const { ids, here } = trail();
  if (here < 1) {
    say("This is the first picture that you opened");
    show("This is the first picture that you opened.");
    return;
  }
  sessionStorage.setItem(trailKey, JSON.stringify({ ids, here: here - 1 }));
  open(ids[here - 1], true);
};

const next = () => {
  const { ids, here } = trail();
  if (here + 1 < ids.length) {
    sessionStorage.setItem(trailKey, JSON.stringify({ ids, here: here + 1 }));
    open(ids[here + 1], true);
  } else if (picture.next) open(picture.next);
  else show("No other picture waits.");
};

function conflict(text) {
  theirs = picture.boxes.map((one) => one.box_px);
  at("conflict-text").textContent = `${text} They are dashed in red (${theirs.length}); yours are ${boxes.length}.`;
  at("conflict").hidden = false;
  draw();
}

const save = () => {
  if (mayEdit) coming.add(saved());
};

const saved = async () => {
  const known = new Set(picture.boxes.map((one) => one.id));
  const body = {
    version: picture.version,
    boxes: boxes.map((one) => ({ id: known.has(one.id) ? one.id : null, box_px: one.box, category: one.category })),
  };
  const { id } = picture;
  try {
    const answer = await send("PUT", `/api/v1/boxes/pictures/${id}`, body);
    localStorage.removeItem(draftKey(id));
    const { ids, here } = trail();
    sessionStorage.setItem(trailKey, JSON.stringify({ ids: ids.slice(0, here + 1), here }));
    say(`Saved. ${answer.waiting} to check`);
    await goOn(answer);
  } catch (error) {
    const newer = error.reason === "conflict" && (await send("GET", `/api/v1/boxes/pictures/${id}`).catch(() => null));
    if (newer && isAs(newer)) await goOn(newer); // its answer was lost
    else if (newer && picture?.id === id) {
      picture = newer;
      writeDraft();
      conflict("Somebody saved other boxes of this picture meanwhile.");
    } else show(error.message || "Saving failed.", "bad");
  }
};

const goOn = async ({ next: following }) => {
  if (following) await opened(following);
  else finish();
};

/** Return whether a picture was confirmed with the boxes that are shown. */
const isAs = (values) => {
  const sorted = (listed) => JSON.stringify(listed.map(({ box, category }) => JSON.stringify([box, category])).sort());
  return values.state === "confirmed" && sorted(stored(values)) === sorted(boxes);
};

const saveNothing = () => {
  if (boxes.length) {
    remember();
    boxes = [];
    selected = null;
    draw();
  }
  save();
};

const discard = () => {
  remember();
  boxes = keyed(stored(picture));
  [selected, theirs] = [null, []];
  at("draft").hidden = at("conflict").hidden = true;
  draw();
  keepDraft();
};

// Keys and buttons --------------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const centre = () => {
  const box = find(selected)?.box;
  return box && [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
};
const EDITS = {
  s: save, enter: save, 0: saveNothing, n: addBox, b: addBox, delete: remove, backspace: remove,
  z: () => restore(done, undone), y: () => restore(undone, done), c: () => at("class")?.focus(),
};
const LOOKS = {
  escape: () => { select(null); at("svg").focus({ preventScroll: true }); },
  "+": () => canvas.zoom(1.5, centre()), "=": () => canvas.zoom(1.5, centre()), "-": () => canvas.zoom(1 / 1.5, centre()),
  f: () => canvas.fit(),
};

const ofArrow = (event) => {
  const [dx, dy] = ARROWS[event.key];
  const far = event.ctrlKey || event.metaKey ? 10 : 1;
  if (selected !== null && find(selected)) {
    return () => mayEdit && nudge(dx * far, dy * far, event.shiftKey ? "far" : event.altKey ? "near" : "");
  }
  if (event.shiftKey || event.altKey || event.ctrlKey || event.metaKey || !dx) return null;
  return dx < 0 ? previous : next;
};

/** Return what a key does now, or null. */
const actOf = (event) => {
  if (ARROWS[event.key]) return ofArrow(event);
  const key = event.key.toLowerCase();
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (!isPlain && !["z", "y", "s"].includes(key)) return null;
  if (key === "enter" && event.target.closest?.("button, a, summary")) return null;
  if (key === "z" && event.shiftKey && mayEdit) return EDITS.y;
  if (/^[1-9]$/.test(key) && isPlain && mayEdit && categories[key - 1]) return () => setClass(categories[key - 1]);
  if (mayEdit && Object.hasOwn(EDITS, key)) return EDITS[key];
  return isPlain && Object.hasOwn(LOOKS, key) ? LOOKS[key] : null;
};

const keyInField = (event) => {
  if (event.target !== at("class") || !["Enter", "Escape"].includes(event.key)) return;
  event.preventDefault();
  if (event.key === "Enter") setClass(event.target.value.trim() || null);
  event.target.blur();
  canvas.focus(selected);
};

// A key that comes while a picture is on its way means that one; but nobody confirms what was not shown yet.
const CONFIRMS = [save, saveNothing];
const REPEATS = /^(Arrow.*|[zy+=-])$/i; // held down, no other key does more than once

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || (!picture && coming.isEmpty)) return;
  if (event.target.closest?.("input, select, textarea")) {
    keyInField(event);
    return;
  }
  const does = actOf(event);
  if (does || (ARROWS[event.key] && !coming.isEmpty)) event.preventDefault();
  if (event.repeat && (!coming.isEmpty || !REPEATS.test(event.key))) return;
  if (!CONFIRMS.includes(does) || coming.isEmpty) coming.after(() => picture && actOf(event)?.());
});

at("svg").addEventListener("focus", () => { if (!canvas.gesture) select(null); });
const onClick = (id, does) => at(id)?.addEventListener("click", (event) => {
  const isSecond = event.detail > 1 && CONFIRMS.includes(does); // a double click confirms one picture, not two
  if (picture && coming.isEmpty && !isSecond) does();
});
for (const [id, act] of [
  ["save", save], ["new", addBox], ["none", saveNothing], ["undo", EDITS.z], ["remove", remove], ["previous", previous],
  ["next", next], ["in", LOOKS["+"]], ["out", LOOKS["-"]], ["fit", LOOKS.f], ["discard", discard], ["mine", save],
  ["theirs", discard],
]) onClick(id, act);
at("class")?.addEventListener("change", (event) => setClass(event.target.value.trim() || null));
for (const one of root.querySelectorAll("[data-nudge]")) {
  one.addEventListener("click", () => coming.isEmpty && nudge(...one.dataset.nudge.split(",").map(Number), at("edge").value));
}
window.addEventListener("pagehide", () => { if (picture && mayEdit) keepDraft(); });

// New proposals came: show those of this picture, unless there are edits.
let wasLive = at("work")?.dataset.live === "yes";
document.body.addEventListener("htmx:afterSwap", () => {
  const isLive = at("work")?.dataset.live === "yes";
  if (wasLive && !isLive) {
    ahead.clear();
    if (picture && !isChanged()) open(picture.id, true);
    else if (!picture) location.reload();
  }
  wasLive = isLive;
});

if (root.dataset.picture) open(Number(root.dataset.picture));
