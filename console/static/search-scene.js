// "Where is it?": an object and a scene, and the heat map of the one in the other.

import { drawObjects } from "./search-draw.js";
import { acceptDrops, acceptFile, acceptPaste, byId, display, post, prepare, say, scrollOnPhone, takePicture } from "./search-picture.js";

const form = byId("search");
const pictures = { query: null, scene: null };
let running = null;

const complain = (text) => {
  byId("problem").hidden = !text;
  byId("problem").textContent = text;
};

const showFound = async (answer) => {
  const { found, way, width, height } = answer;
  await display(byId("heat").querySelector("img"), `data:image/jpeg;base64,${answer.picture}`);
  byId("heat").hidden = false;
  const shown = found.map((one) => ({ box: one.box, name: one.score.toFixed(3), isKnown: true }));
  drawObjects(byId("heat"), width, height, shown, () => {});
  const time = `${(answer.ms / 1000).toFixed(2)} s`;
  if (way === "finder") {
    byId("says").textContent = found.length
      ? `The finder found it ${found.length === 1 ? "once" : `in ${found.length} places`} in ${time}.`
      : `The finder did not find it (${time}). Warm parts look like it, but not enough. Try the similarity map, or another picture of the object.`;
  } else {
    const missing = answer.has_finder ? "" : "This bundle has no finder; train one with edge-train finder. ";
    byId("says").textContent = `${missing}Similarity map: ${answer.windows} windows compared by the embedder of ${answer.category} in ${time}. ` +
      `The box is the nearest window; what is smaller than ${answer.smallest_px} of ${Math.min(width, height)} pixels is missed. A low similarity means that the object is probably not there.`;
  }
  byId("places").replaceChildren(...found.map((one, number) => {
    const item = document.createElement("li");
    const [x0, y0, x1, y1] = one.box.map(Math.round);
    item.textContent = `${number + 1}: ${way === "finder" ? "score" : "similarity"} ${one.score.toFixed(3)}, at ${x0},${y0} to ${x1},${y1} of ${width}×${height} pixels`;
    return item;
  }));
};

const search = async () => {
  if (!pictures.query || !pictures.scene) {
    say("");
    byId("says").textContent = pictures.query ? "Now give the scene." : pictures.scene ? "Now give the object." : byId("says").textContent;
    return;
  }
  running?.abort();
  const mine = (running = new AbortController());
  complain("");
  say("Searching the scene …");
  const slow = setTimeout(() => say("Searching the scene … A bundle that is used for the first time is loaded, which takes some seconds."), 3000);
  const data = new FormData(form);
  const fields = { choice: data.get("choice"), way: data.get("way") };
  try {
    const waiting = () => say("The console is busy; it is tried again …");
    const answer = await post("/api/v1/search/scene", [pictures.query, pictures.scene], fields, { signal: mine.signal, waiting });
    if (running === mine) {
      await showFound(answer);
      scrollOnPhone(byId("found-title"));
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("heat").hidden = true;
    byId("places").replaceChildren();
    byId("says").textContent = "";
    complain(error.message);
  } finally {
    clearTimeout(slow);
    if (running === mine) say("");
  }
};

const open = (slot) => {
  const name = slot.dataset.slot;
  let given = null; // the file that came last
  const got = async (file) => {
    given = file;
    running?.abort();
    say("Reading the picture …"); // a large one takes seconds
    const made = await prepare(file);
    if (given !== file) return; // another one came meanwhile
    pictures[name] = made;
    const canDisplay = await display(slot.querySelector("img"), made);
    if (given !== file) return;
    slot.querySelector(".shown").hidden = !canDisplay;
    slot.querySelector(".invite").hidden = canDisplay;
    if (!canDisplay) slot.querySelector(".invite").textContent = `${file.name}: this browser cannot show it.`;
    await search();
  };
  acceptDrops(slot.querySelector(".drop"), got);
  acceptFile(slot.querySelector(".file"), got);
  acceptFile(slot.querySelector(".capture"), got);
  slot.querySelector(".choose").addEventListener("click", () => slot.querySelector(".file").click());
  slot.querySelector(".take").addEventListener("click", () => takePicture(slot.querySelector(".capture"), got));
  return got;
};

if (form) {
  const [gotQuery, gotScene] = [...document.querySelectorAll("[data-slot]")].map(open);
  acceptPaste((file) => (pictures.query ? gotScene(file) : gotQuery(file)));
  form.addEventListener("change", search);
  form.addEventListener("submit", (event) => event.preventDefault());
}
