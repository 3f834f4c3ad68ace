// "What is this?": shows a picture, has it searched, and draws what was found.

import { show } from "./console.js";
import { drawObjects } from "./search-draw.js";
import { acceptDrops, acceptFile, acceptPaste, byId, display, post, prepare, say, scrollOnPhone, takePicture } from "./search-picture.js";

const form = byId("search");
const percent = (share) => (share < 0.01 ? "below 1 %" : `${Math.round(100 * share)} %`);

let given = null; // the file that came last
let picture = null; // the same, as it is sent
let canDisplay = false;
let running = null;
let choose = () => {};

const complain = (text) => {
  const box = byId("problem");
  box.hidden = !text;
  box.replaceChildren();
  if (!text) return;
  const words = document.createElement("span");
  words.textContent = text;
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Try again";
  again.addEventListener("click", search);
  box.append(words, again);
};

const clearFound = () => {
  byId("objects").replaceChildren();
  byId("about").hidden = true;
  byId("empty").hidden = false;
  byId("empty").textContent = "Nothing is searched yet.";
  byId("shown").querySelector("svg")?.remove();
};

const badge = (text, kind = "") => {
  const one = document.createElement("span");
  one.className = `badge ${kind}`;
  one.textContent = text;
  return one;
};

const nearItem = (hit, isMatch) => {
  const item = byId("near").content.firstElementChild.cloneNode(true);
  item.classList.toggle("match", isMatch);
  const [img, link, id, meter, text] = ["img", "a", "small", "meter", ".right"].map((one) => item.querySelector(one));
  if (hit.thumbnail) {
    img.src = hit.thumbnail;
    img.onerror = () => img.removeAttribute("src");
  }
  link.textContent = hit.label;
  if (hit.page) link.href = hit.page;
  id.textContent = hit.item === hit.label ? "" : hit.item;
  meter.value = Math.max(0, hit.similarity);
  meter.setAttribute("aria-label", `similarity of ${hit.label}`);
  text.textContent = hit.similarity.toFixed(3);
  return item;
};

const nameOf = (one) => (one.answer ? one.answer.label : "Unknown");

const objectItem = (one, number, pair) => {
  const item = byId("object").content.firstElementChild.cloneNode(true);
  item.classList.toggle("unknown", !one.answer);
  item.setAttribute("aria-label", `Object ${number + 1}: ${nameOf(one)}`);
  item.querySelector(".number").textContent = number + 1;
  item.querySelector("h3").textContent = nameOf(one);
  const why = item.querySelector(".why");
  why.hidden = !one.reason_text;
  why.textContent = one.reason_text;
  const facts = item.querySelector(".facts");
  if (one.category) facts.append(badge(`${one.category} ${percent(one.category_probability)}`));
  if (one.detected_as && one.detected_as !== "object") facts.append(badge(`detected as ${one.detected_as}`));
  if (one.answer) {
    facts.append(badge(one.probability === null ? "looks like it" : `right with ${percent(one.probability)}`, "good"));
  } else if (one.reason) facts.append(badge(one.reason, "warn"));
  if (one.margin !== null) facts.append(badge(`margin ${one.margin.toFixed(3)}`));
  if (pair.has_localiser && !one.silhouette) facts.append(badge("no silhouette found"));
  const near = item.querySelector(".near");
  near.append(...one.top.map((hit) => nearItem(hit, one.answer?.item === hit.item)));
  item.querySelector(".nearest").hidden = !one.top.length;
  const teach = item.querySelector(".teach");
  teach.hidden = !form.dataset.mayTeach;
  teach.addEventListener("click", () => teachObject(one, teach));
  item.addEventListener("focusin", () => choose(number, false));
  item.addEventListener("pointerenter", () => choose(number, false));
  return item;
};

const showFound = async (answer) => {
  const { objects, pair, stages, width, height } = answer;
  if (!canDisplay && answer.preview) {
    await display(byId("picture"), `data:image/jpeg;base64,${answer.preview}`);
    canDisplay = true;
    showPicture();
  }
  byId("objects").replaceChildren(...objects.map((one, number) => objectItem(one, number, pair)));
  byId("empty").hidden = objects.length > 0;
  byId("empty").textContent = "The detector found no object. If one object fills the picture, choose “one object”.";
  if (answer.left_out) show(`${answer.left_out} more objects are not shown.`);
  const drawn = objects.map((one) => ({ ...one, name: nameOf(one), isKnown: Boolean(one.answer) }));
  const mark = drawObjects(byId("shown"), width, height, drawn, (number) => choose(number, true));
  const items = [...byId("objects").children];
  choose = (number, focus) => {
    mark(number);
    items.forEach((item, index) => item.classList.toggle("chosen", items.length > 1 && index === number));
    if (focus) items[number]?.focus();
  };
  const total = stages.reduce((sum, one) => sum + one.ms, 0);
  byId("about-short").textContent = `${total.toFixed(1)} ms · bundle ${pair.bundle} · gallery ${pair.gallery}`;
  byId("stages").replaceChildren(...stages.flatMap((one) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = `${one.ms.toFixed(1)} ms`;
    text.textContent = one.text;
    return [term, text];
  }));
  byId("about").hidden = false;
};

const search = async () => {
  if (!picture) return;
  running?.abort();
  const mine = (running = new AbortController());
  complain("");
  say("Searching …");
  const slow = setTimeout(() => say("Searching … A bundle that is used for the first time is loaded, which takes some seconds."), 1500);
  const data = new FormData(form);
  const fields = { choice: data.get("choice"), framing: data.get("framing"), preview: canDisplay ? "false" : "true" };
  try {
    const waiting = () => say("The console is busy; it is tried again …");
    const answer = await post("/api/v1/search", [picture], fields, { signal: mine.signal, waiting });
    if (running === mine) {
      await showFound(answer);
      scrollOnPhone(byId("found-title"));
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    clearFound();
    complain(error.message);
  } finally {
    clearTimeout(slow);
    if (running === mine) say("");
  }
};

const showPicture = () => {
  byId("shown").hidden = !canDisplay;
  byId("invite").hidden = canDisplay;
  byId("invite").textContent = picture && !canDisplay ? `${picture.name}: this browser cannot show it.` : byId("invite").textContent;
  byId("drop").classList.toggle("has-picture", canDisplay);
  byId("clear").hidden = !picture;
};

const got = async (file) => {
  given = file;
  running?.abort();
  clearFound();
  complain("");
  say("Reading the picture …"); // a large one takes seconds
  const made = await prepare(file);
  if (given !== file) return; // another one came meanwhile
  picture = made;
  canDisplay = picture.type !== "image/svg+xml" && (await display(byId("picture"), picture));
  if (given !== file) return;
  showPicture();
  await search();
};

const teachObject = async (one, button) => {
  button.disabled = true;
  const [x0, y0, x1, y1] = one.box;
  const fields = { x0, y0, x1, y1, ...(one.category ? { category: one.category } : {}) };
  try {
    const answer = await post("/api/v1/search/teach", [picture], fields, {});
    sessionStorage.setItem("finesight-said", answer.says);
    location.assign(answer.go);
  } catch (error) {
    show(error.message, "bad");
    button.disabled = false;
  }
};

if (form) {
  acceptDrops(byId("drop"), got);
  acceptPaste(got);
  acceptFile(byId("file"), got);
  acceptFile(byId("capture"), got);
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("take").addEventListener("click", () => takePicture(byId("capture"), got));
  byId("clear").addEventListener("click", () => {
    running?.abort();
    given = picture = null;
    canDisplay = false;
    byId("picture").removeAttribute("src");
    byId("invite").textContent = "Drop a picture here, paste one, choose one, or take one.";
    clearFound();
    complain("");
    say("");
    showPicture();
    byId("choose").focus();
  });
  form.addEventListener("change", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input:not([type=radio]), dialog")) return;
    const key = event.key.toLowerCase();
    if (key === "o") byId("choose").click();
    else if (key === "c") byId("take").click();
    else if (key === "t") document.querySelector(".object:focus .teach, .object:focus-within .teach")?.click();
    else if (/^[1-9]$/.test(key) && byId("objects").children.length >= Number(key)) choose(Number(key) - 1, true);
    else return;
    event.preventDefault();
  });
}
