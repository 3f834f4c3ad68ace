// The identity review: keys, mouse and touch decide; the grid and the stage show it at once, the queue sends it.
import { Pending, send, show } from "/static/console.js";
import { setUpAccept } from "/static/review.accept.js";
import { setUpNaming } from "/static/review.naming.js";
import { DecisionQueue, newId, setsLeft } from "/static/review.queue.js";
import { cropImage, drawStage, make, preload, stateText } from "/static/review.stage.js";

const $ = (id) => document.getElementById(id);
const root = $("review");
const AHEAD = 24; // crops before the end of the list, when the browser requests the next page
const STORED_MS = 5000; // decisions may take to be stored, before what needs them gives up
const REST_MS = 150; // on a crop, before the browser requests crops with the same name
const ACCEPTED = "finesight-accepted"; // in sessionStorage: undo of an accepted threshold, across the reload

const start = () => {
  const { set, user, model } = root.dataset;
  const may = root.dataset.may === "1";
  const crops = new Map(), cells = new Map(), alike = new Map();
  let list = []; // ids as they are shown
  let at = -1, anchor = -1, after = null, loading = null, more = true, restarted = false;
  const selected = new Set(), later = new Set(), conflicts = new Map(), undone = [], coming = new Pending();
  const grid = $("grid");
  const current = () => crops.get(list[at]);
  const isOpen = (id) => crops.get(id)?.state === "open";

  // ---- loading

  const query = () => {
    const { state, order, filterCategory, filterItem, filterText } = root.dataset;
    const found = new URLSearchParams({ order, limit: 60 });
    for (const one of state === "all" ? ["open", "item", "unknown", "nothing"] : [state]) found.append("state", one);
    for (const [name, value] of [["category", filterCategory], ["item", filterItem], ["text", filterText], ["after", after]]) if (value) found.set(name, value);
    return found;
  };

  const load = () => {
    if (loading || !more) return loading;
    loading = send("GET", `/api/v1/review/${set}/crops?${query()}`).then((page) => {
      after = page.after;
      const fresh = page.crops.filter((one) => !crops.has(one.id));
      add(fresh, list.length);
      more = after !== null;
      if (!more && !restarted && fresh.length && root.dataset.order !== "picture") { // doubts changed meanwhile: look once more from the start
        restarted = more = true;
        after = null;
      }
    }, (error) => { more = false; show(error.message, "bad"); }).finally(() => { loading = null; finish(); });
    return loading;
  };

  const finish = () => {
    if (at < 0 && list.length) go(Math.max(0, list.findIndex(isOpen)));
    $("stage").hidden = !list.length;
    $("nothing").hidden = list.length > 0 || more;
    if (root.dataset.unseen !== "0" && !list.length) $("nothing-text").textContent = "Models look at the crops now; they appear when you load the page again.";
    $("end").textContent = more ? "" : list.length ? "End of the list." : "";
  };

  const add = (found, place) => {
    const fresh = found.filter((one) => !crops.has(one.id));
    for (const one of fresh) crops.set(one.id, one);
    list.splice(place, 0, ...fresh.map((one) => one.id));
    const before = grid.children[place] ?? null;
    for (const one of fresh) grid.insertBefore(cell(one), before);
    if (at >= place && fresh.length && place < list.length - fresh.length) at += fresh.length;
  };

  const cell = (crop) => {
    const button = make("button", { type: "button", className: "cell", tabIndex: -1, ariaPressed: "false" }, make("img", { alt: "", loading: "lazy", src: cropImage(crop, 128) }));
    button.dataset.id = crop.id;
    cells.set(crop.id, button);
    paint(crop.id);
    return make("li", {}, button);
  };

  const paint = (id) => {
    const crop = crops.get(id), button = cells.get(id);
    const text = stateText(crop) || (later.has(id) ? "later" : "");
    button.dataset.state = crop.state;
    button.ariaPressed = String(selected.has(id));
    button.setAttribute("aria-label", `Crop ${id}, ${text || "open"}${crop.folded ? `, stands for ${crop.folded + 1}` : ""}`);
    for (const old of button.querySelectorAll("span")) old.remove();
    if (text) button.append(make("span", { className: "mark" }, text));
    if (crop.folded) button.append(make("span", { className: "many" }, `×${crop.folded + 1}`));
  };

  // ---- moving

  const go = (index, keepAnchor = false) => {
    if (index < 0 || index >= list.length) return;
    const old = cells.get(list[at]);
    if (old) { old.removeAttribute("aria-current"); old.tabIndex = -1; }
    at = index;
    if (!keepAnchor) anchor = -1;
    const now = cells.get(list[at]);
    now.setAttribute("aria-current", "true");
    now.tabIndex = 0;
    now.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (grid.contains(document.activeElement)) now.focus({ preventScroll: true });
    drawCurrent();
    if (list.length - at < AHEAD) load();
    preload([1, 2, 3].map((step) => crops.get(list[at + step])).filter(Boolean), model);
  };

  let resting;
  const drawCurrent = () => {
    const crop = current();
    if (!crop) return;
    drawStage(crop, {
      model, may, selected: selected.size,
      others: [...crops.values()].filter((one) => one.picture === crop.picture),
      alike: (one) => (alike.get(`${one.category}\n${one.item}`) || []).filter((id) => id !== one.crop && id !== crop.id).slice(0, 5),
      choose: (id) => go(list.indexOf(id)), accept: (index) => coming.after(() => current() === crop && propose(index)),
    });
    clearTimeout(resting);
    resting = setTimeout(() => lookAlike(crop), REST_MS);
  };

  const lookAlike = async (crop) => {
    let isNew = false;
    for (const { category, item } of crop.proposals || []) {
      const key = `${category}\n${item}`;
      if (alike.has(key)) continue;
      alike.set(key, []);
      try {
        const found = await send("GET", `/api/v1/review/${set}/alike?${new URLSearchParams({ category, item })}`);
        alike.set(key, found.crops);
        isNew ||= found.crops.length > 0;
      } catch { alike.delete(key); }
    }
    if (isNew && current() === crop && !document.querySelector("dialog[open]")) drawCurrent();
  };

  const nextOpen = () => coming.add(goToNextOpen());
  const goToNextOpen = async () => {
    for (;;) {
      let next = list.findIndex((id, index) => index > at && isOpen(id) && !later.has(id));
      if (next < 0 && !more) next = list.findIndex((id) => isOpen(id) && !later.has(id)); // those that were passed over
      if (next < 0 && !more) next = list.findIndex((id, index) => index !== at && isOpen(id)); // those for later
      if (next >= 0) { go(next); return; }
      if (!more) break;
      await load();
    }
    if (at + 1 < list.length && root.dataset.state !== "open") go(at + 1);
    else if (!list.some(isOpen) && root.dataset.state === "open") show("All crops here are decided.");
  };

  /** Return whether all decisions are stored; says so if they are not. */
  const stored = async () => {
    const isStored = await queue.settled(STORED_MS);
    if (!isStored) show("Your last decisions are not stored yet. Try again when they are.", "bad");
    return isStored;
  };

  const columns = () => {
    const top = grid.children[0]?.offsetTop;
    const count = [...grid.children].findIndex((one) => one.offsetTop !== top);
    return count < 1 ? 1 : count;
  };

  // ---- selecting

  const toggle = (index) => {
    const id = list[index];
    if (!selected.delete(id)) selected.add(id);
    paint(id);
    tellSelected();
  };
  const selectRange = (to) => {
    if (anchor < 0) anchor = at;
    for (const id of [...selected]) { selected.delete(id); paint(id); }
    for (let i = Math.min(anchor, to); i <= Math.max(anchor, to); i++) { selected.add(list[i]); paint(list[i]); }
    go(to, true);
    tellSelected();
  };
  const deselect = () => {
    const ids = [...selected];
    selected.clear();
    ids.forEach(paint);
    anchor = -1;
    tellSelected();
  };
  const tellSelected = () => {
    $("selected").textContent = selected.size ? `${selected.size} selected: keys decide all. Esc deselects` : "Space selects, Shift+arrows a range";
    $("selected").title = selected.size ? "1, 2 and 3 name all selected crops as the large one's proposal; 0, N and X work likewise" : "";
  };

  // ---- deciding

  const decide = (named) => {
    const ids = (selected.size ? [...selected] : [list[at]]).filter((id) => crops.has(id)).slice(0, 1000);
    if (!may || !ids.length) return;
    const decision = { id: newId(), crops: ids.map((id) => ({ id, version: crops.get(id).version })), ...named };
    undone.push({ id: decision.id, at, before: ids.map((id) => ({ ...crops.get(id) })) });
    let folded = 0;
    for (const id of ids) {
      const crop = crops.get(id);
      if (crop.state === "open") folded += crop.folded + 1;
      Object.assign(crop, { state: named.state, label: named.label ?? null, item: named.item ?? null, by: user, version: crop.version + 1 });
      if (named.category) crop.category = named.category;
      later.delete(id);
      paint(id);
    }
    if (named.item) alike.delete(`${named.category}\n${named.item}`);
    tellProgress(folded);
    queue.add(decision);
    if (selected.size) deselect();
    nextOpen();
  };

  const propose = (index) => {
    const one = current()?.proposals?.[index];
    if (!one) { show(`This crop has no proposal ${index + 1}. Name it with N.`); return; }
    decide({ state: "item", category: one.category, item: one.item, label: one.label });
  };

  const undo = () => {
    const last = undone.pop();
    if (!last) { show("Nothing to undo here; the log holds older decisions."); return; }
    let folded = 0;
    for (const before of last.before) {
      const crop = crops.get(before.id);
      if (!crop) continue; // it was deleted meanwhile
      if (before.state === "open" && crop.state !== "open") folded += crop.folded + 1;
      Object.assign(crop, before, { version: crop.version + 1, proposals: crop.proposals });
      paint(before.id);
    }
    tellProgress(-folded);
    queue.add({ id: newId(), crops: last.before.map((one) => ({ id: one.id, version: 0 })), undo: last.id });
    if (last.before.length) { const index = list.indexOf(last.before[0].id); at = Math.min(at, list.length - 1); go(index >= 0 ? index : at); }
    else { sessionStorage.removeItem(ACCEPTED); queue.settled(Infinity).then(() => location.reload()); }
  };

  const skip = () => { if (current()) { later.add(list[at]); paint(list[at]); nextOpen(); } };

  const unfold = () => { if (current()?.folded && may) coming.add(unfoldIt(current())); };
  const unfoldIt = async (crop) => {
    if (!(await stored())) return;
    try {
      const { crops: found } = await send("POST", `/api/v1/review/${set}/crops/${crop.id}/unfold`);
      crop.folded = 0;
      paint(crop.id);
      const place = list.indexOf(crop.id) + 1;
      add(found, place);
      drawCurrent();
    } catch (error) { show(error.message, "bad"); }
  };

  // ---- what the server answers

  const answered = (decision, outcome, answer) => {
    for (const one of outcome.stored) {
      const crop = crops.get(one.id);
      if (!crop) continue;
      if (queue.has(one.id)) { crop.version = queue.rebase(one.id, one.version); continue; }
      Object.assign(crop, { version: one.version, state: one.state, category: one.category, item: one.item, label: one.label, by: one.by });
      paint(one.id);
    }
    for (const one of outcome.gone) { queue.drop(one); remove(one); }
    if (outcome.gone.length) show("A crop was deleted meanwhile; its decision is of no use any more.");
    for (const one of outcome.conflicts) conflicts.set(one.id, { theirs: one, mine: decision.undo ? null : decision });
    for (const [id, proposals] of Object.entries(answer.proposals)) {
      const crop = crops.get(Number(id));
      if (!crop) continue;
      const isOther = JSON.stringify(proposals) !== JSON.stringify(crop.proposals);
      crop.proposals = proposals;
      if (isOther && crop === current() && !document.querySelector("dialog[open]")) drawCurrent();
    }
    progress = answer.progress;
    tellProgress(0);
    askConflict();
  };

  const remove = (id) => {
    const index = list.indexOf(id);
    if (index < 0) return;
    list.splice(index, 1);
    cells.get(id).parentElement.remove();
    cells.delete(id);
    crops.delete(id);
    selected.delete(id);
    if (index < at) at--;
    else if (index === at) { at--; go(Math.min(index, list.length - 1)); }
  };

  const askConflict = () => {
    if ($("conflict").open || !conflicts.size) return;
    const [id, { theirs, mine }] = conflicts.entries().next().value;
    queue.drop(id);
    const crop = crops.get(id);
    if (crop) { Object.assign(crop, { version: theirs.version, state: theirs.state, category: theirs.category, item: theirs.item, label: theirs.label, by: theirs.by }); paint(id); }
    const what = (one) => ({ open: "open, perhaps with another box", unknown: "unknown", nothing: "no object" })[one.state] || one.label || one.item;
    $("conflict-crop").src = crop ? cropImage(crop, 256) : `/api/v1/crops/${id}/image?px=256`;
    $("conflict-text").textContent = `${theirs.by || "Somebody"} says: ${what(theirs)}. ${mine ? `You said: ${what(mine)}.` : "Your undo came later, and changed nothing."}`;
    $("conflict-mine").hidden = !mine;
    const close = () => { conflicts.delete(id); $("conflict").close(); drawCurrent(); askConflict(); };
    $("conflict-theirs").onclick = close;
    $("conflict-mine").onclick = () => {
      const { state, category, item, label } = mine;
      queue.add({ id: newId(), crops: [{ id, version: theirs.version }], state, category, item, label });
      if (crop) { Object.assign(crop, { state, item: item ?? null, label: label ?? null, by: user, version: theirs.version + 1 }); paint(id); }
      close();
    };
    $("conflict").showModal();
  };
  $("conflict").addEventListener("cancel", (event) => { event.preventDefault(); $("conflict-theirs").click(); });

  const refused = (decision, text) => {
    show(`Not stored: ${text}`, "bad");
    const index = undone.findIndex((one) => one.id === decision.id);
    if (index < 0) return;
    for (const before of undone.splice(index, 1)[0].before) {
      if (!crops.has(before.id)) continue;
      Object.assign(crops.get(before.id), before);
      paint(before.id);
    }
    drawCurrent();
  };

  let progress = null;
  const tellProgress = (more) => {
    const bar = $("progress");
    if (progress && !more) bar.max = progress.open + progress.item + progress.unknown + progress.nothing, bar.value = bar.max - progress.open;
    else bar.value += more;
    $("progress-text").textContent = `${bar.value.toLocaleString()} of ${bar.max.toLocaleString()} crops reviewed`;
  };

  const changed = (count, why) => {
    const badge = $("saved");
    badge.textContent = why ? `${count} waiting: ${why}` : count ? `saving ${count}` : "all saved";
    badge.className = `badge ${why ? "bad" : count ? "" : "good"}`;
  };

  const queue = new DecisionQueue(set, user, { answered, refused, changed, shown: () => list.slice(Math.max(0, at), at + 40).filter(isOpen) });
  const name = setUpNaming(set, model, (value) => decide({ state: "item", ...value, item: value.item || null }));
  const openAccept = setUpAccept(set, model, (decision, result) => {
    sessionStorage.setItem(ACCEPTED, `${set} ${decision}`);
    sessionStorage.setItem("finesight-said", `${result}. U takes all of it back.`);
    location.reload();
  });

  // ---- keys, mouse, touch

  const acts = {
    unknown: () => decide({ state: "unknown" }), nothing: () => decide({ state: "nothing" }), later: skip, undo, unfold, next: nextOpen,
    previous: () => go(at - 1), name: () => current() && may && name(current(), selected.size, root.dataset.category),
    accept: () => { if (may) coming.add(stored().then((isStored) => isStored && openAccept())); },
  };
  const keys = {
    0: acts.unknown, n: acts.name, x: acts.nothing, s: skip, u: undo, f: unfold, a: acts.accept, Enter: nextOpen, Backspace: acts.previous,
    m: () => at >= 0 && toggle(at), " ": () => at >= 0 && toggle(at), Escape: deselect,
    p: () => location.assign(`?${new URLSearchParams({ state: root.dataset.state, order: root.dataset.order === "picture" ? "doubt" : "picture" })}`),
    "/": () => { document.querySelector(".filters").open = true; $("filter-text").focus(); },
    1: () => propose(0), 2: () => propose(1), 3: () => propose(2),
  };
  const moves = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns(), ArrowDown: () => columns() };

  document.addEventListener("keydown", (event) => {
    const inCell = event.target.closest?.(".cell");
    if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input, select, textarea, summary, [contenteditable]")) return;
    if (!inCell && event.target.closest?.("button, a") && (event.key === "Enter" || event.key === " ")) return;
    if (event.ctrlKey && event.key !== "z") return;
    if (event.repeat && !moves[event.key]) return;
    if (moves[event.key]) {
      const to = Math.max(0, Math.min(list.length - 1, at + moves[event.key]()));
      event.preventDefault();
      if (list.length) event.shiftKey ? selectRange(to) : go(to);
      return;
    }
    const act = event.ctrlKey ? undo : keys[event.key] || keys[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    coming.after(act);
  });
  grid.addEventListener("click", (event) => {
    const button = event.target.closest(".cell");
    if (!button) return;
    const index = list.indexOf(Number(button.dataset.id));
    if (event.shiftKey) selectRange(index);
    else if (event.ctrlKey || event.metaKey) toggle(index);
    else go(index);
  });
  $("stage").addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button) coming.after(acts[button.dataset.act]);
  });
  $("open-accept")?.addEventListener("click", () => coming.after(acts.accept));
  for (const button of document.querySelectorAll(".actions [data-act]")) button.disabled = !may && !["previous", "next", "later"].includes(button.dataset.act);
  grid.addEventListener("scroll", () => { if (grid.scrollHeight - grid.scrollTop - grid.clientHeight < 600) load(); }, { passive: true });

  // ---- begin

  const watchProposing = async () => { // proposals come in while one reviews
    const task = await send("POST", `/api/v1/review/${set}/propose`, {}).catch((error) => { show(error.message, "bad"); });
    if (!task) return;
    const part = make("div");
    $("task").append(part);
    for (;;) {
      const now = await send("GET", `/api/v1/tasks?key=${encodeURIComponent(task.key)}`).catch(() => null);
      if (!now) return;
      part.className = now.state === "failed" ? "notice bad" : "small soft";
      part.textContent = now.state === "running" ? `${now.name}: ${now.done} of ${now.total}` : now.state === "failed" ? `No proposals: ${now.result}` : now.result;
      await refresh();
      if (now.state !== "running") return;
      await new Promise((done) => setTimeout(done, 1500));
    }
  };
  const refresh = async () => {
    const missing = list.filter((id) => crops.get(id).proposals === null).slice(0, 200);
    if (!missing.length) return;
    const page = await send("GET", `/api/v1/review/${set}/crops?${new URLSearchParams(missing.map((id) => ["id", id]))}`).catch(() => null);
    for (const one of page?.crops || []) {
      const crop = crops.get(one.id);
      Object.assign(crop, { proposals: one.proposals, doubt: one.doubt, proposed_category: one.proposed_category, folded: one.folded });
      paint(one.id);
      if (crop === current() && !document.querySelector("dialog[open]")) drawCurrent();
    }
  };

  const [acceptedIn, acceptedAs] = (sessionStorage.getItem(ACCEPTED) || " ").split(" ");
  if (acceptedIn === set) undone.push({ id: acceptedAs, at: 0, before: [] });
  (async () => {
    if (root.dataset.crop) {
      const page = await send("GET", `/api/v1/review/${set}/crops?id=${root.dataset.crop}`).catch(() => ({ crops: [] }));
      add(page.crops, 0);
      if (!page.crops.length) show("This crop is not there any more.");
      if (list.length) go(0);
    }
    await load();
    if (may && root.dataset.unseen !== "0") watchProposing();
  })();
};

if (root) start();
else { // the list of sets: what a closed tab left is sent from here
  const note = $("waiting");
  for (const set of note ? setsLeft(note.dataset.user) : []) {
    new DecisionQueue(set, note.dataset.user, {
      answered: (_, outcome) => { if (outcome.conflicts.length) show("Somebody had decided some of your unsent crops; look at the log.", "bad"); },
      refused: (_, text) => show(`Not stored: ${text}`, "bad"), shown: () => [],
      changed: (count, why) => { note.hidden = !count; note.textContent = `${count} decisions of yours are being sent${why ? `: ${why}` : ""}.`; },
    });
  }
}
