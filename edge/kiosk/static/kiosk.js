"use strict";

// The page shows the state from /v1/state. One card is its own: the item that was just taught.
const byId = (id) => document.getElementById(id);
const cards = ["waiting", "hold_still", "answer", "unknown", "teaching", "learnt", "no_picture", "lost"];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const REASONS = {
  unknown_item: "I have not seen exactly this one before.",
  unknown_category: "I have not seen anything of this kind before.",
  low_margin: "It could be one of several. Show me another side.",
  gallery_empty: "I know nothing of this kind yet.",
  too_small: "It is too small. Bring it closer.",
  blurred: "I cannot see it clearly. Hold it still.",
  not_looked_at: "I cannot recognise things of this kind at the moment.",
};
const VERDICTS = {
  take: "Good. Turn it a little.",
  same: "Turn it a little, so that I see another side.",
  moving: "Hold it still for a moment.",
  blurred: "I cannot see it clearly. Hold it still.",
  enough: "I have seen enough. Give it a name.",
};
const WARNINGS = {
  few_looks: () => "I have only a few pictures of it. Teach me more under the same name.",
  same_pose: () => "All pictures show the same side. Turn it more next time.",
  near_another: (other) => "It looks very much like " + other.label + ". I may confuse the two.",
};
let state = null;
let learnt = null; // the answer of /v1/taught, until the person closes its card

async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const pictureOf = (item, category) =>
  "/v1/picture?item=" + encodeURIComponent(item) + (category ? "&category=" + encodeURIComponent(category) : "");

function setPicture(img, source) {
  if (img.getAttribute("src") === source) return;
  img.classList.remove("absent");
  img.onerror = () => {
    const anywhere = source.replace(/&category=.*/, ""); // an alternative may be of another category
    img.onerror = () => img.classList.add("absent");
    img.src = anywhere;
  };
  img.src = source;
}

function element(tag, className, text) {
  const created = document.createElement(tag);
  if (className) created.className = className;
  if (text !== undefined) created.textContent = text;
  return created;
}

function listAlternatives(list, hits, category) {
  list.replaceChildren(
    ...hits.slice(0, 3).map((hit) => {
      const row = element("li");
      const img = element("img");
      img.alt = "";
      setPicture(img, pictureOf(hit.item, category));
      const similarity = element("meter", "similarity"); // no number: it would be taken for a probability
      similarity.value = hit.score;
      similarity.title = "how similar";
      row.append(img, element("span", "label", hit.label), similarity);
      return row;
    }),
  );
}

function showAnswer(answer) {
  const category = answer.category ? answer.category.name : "";
  const probability = answer.match.probability; // null: nobody has measured how sure such an answer is
  byId("answer-label").textContent = (probability === null ? "Looks like " : "") + answer.match.label;
  byId("answer-category").textContent = category;
  byId("answer-sure").hidden = probability === null;
  byId("answer-sure").textContent = probability === null ? "" : Math.floor(probability * 100) + " % sure";
  const attributes = answer.attributes || []; // absent where the gallery has none
  byId("answer-attributes").textContent = attributes.map((one) => one.name + ": " + one.value).join(" · ");
  setPicture(byId("answer-picture"), pictureOf(answer.match.item, category));
  listAlternatives(byId("answer-top"), answer.top.filter((hit) => hit.item !== answer.match.item), category);
}

function showUnknown(answer) {
  byId("reason").textContent = REASONS[answer.reason] || "";
  listAlternatives(byId("unknown-top"), answer.top, answer.category ? answer.category.name : "");
}

function showTeaching(teaching, categories) {
  const done = teaching.looks >= teaching.wanted;
  byId("verdict").textContent = VERDICTS[done ? "enough" : teaching.verdict];
  const looks = byId("looks");
  while (looks.children.length > teaching.wanted) looks.lastChild.remove();
  while (looks.children.length < teaching.wanted) looks.append(element("li"));
  [...looks.children].forEach((slot, number) => {
    const taken = number < teaching.looks;
    if (taken && !slot.firstChild) {
      const img = element("img");
      img.alt = "Picture " + (number + 1);
      img.src = "/v1/teaching/looks/" + number + "?" + Date.now();
      slot.append(img);
    } else if (!taken) slot.replaceChildren();
    slot.classList.toggle("taken", taken);
  });
  const select = byId("category");
  if (select.options.length !== categories.length + 1) {
    select.replaceChildren(select.options[0], ...categories.map((name) => new Option(name, name)));
  }
  updateLearnButton();
}

const updateLearnButton = () => {
  const looks = state && state.teaching ? state.teaching.looks : 0;
  byId("learn").disabled = looks === 0 || byId("name").value.trim() === "";
};

function show(next) {
  const before = state ? state.phase : null;
  state = next;
  const phase = learnt ? "learnt" : next.phase;
  document.body.dataset.phase = phase;
  document.body.dataset.still = next.still;
  for (const id of cards) byId(id).hidden = id !== phase;
  byId("blind").hidden = next.phase !== "no_picture";
  byId("still").textContent =
    next.phase === "no_picture" ? "" : next.still ? "Still" : "Moving";
  byId("invitation").textContent =
    next.hint === "kept_moving"
      ? "It kept moving. Hold it still, and ask again."
      : "Hold it in front of the camera. I say what it is as soon as it is still.";
  if (phase === "answer") showAnswer(next.answer);
  if (phase === "unknown") showUnknown(next.answer);
  if (phase === "teaching") {
    if (before !== "teaching") {
      byId("teaching").reset();
      byId("problem").hidden = true;
      byId("looks").replaceChildren();
    }
    showTeaching(next.teaching, next.categories);
  }
}

async function followState() {
  let version = "";
  for (;;) {
    try {
      const next = await call("GET", "/v1/state?after=" + version);
      version = next.version;
      show(next);
    } catch {
      version = "";
      document.body.dataset.phase = "lost";
      for (const id of cards) byId(id).hidden = id !== "lost";
      await pause(1000);
    }
  }
}

async function followPicture() {
  let number = 0;
  for (;;) {
    try {
      const response = await fetch("/v1/live?after=" + number);
      if (response.status === 200) {
        number = response.headers.get("X-Number");
        const live = byId("live");
        const old = live.src;
        live.onload = () =>
          live.parentElement.style.setProperty("--aspect", live.naturalWidth / live.naturalHeight);
        live.src = URL.createObjectURL(await response.blob());
        if (old) URL.revokeObjectURL(old);
      } else if (response.status !== 204) await pause(1000);
    } catch {
      await pause(1000);
    }
  }
}

async function sendAction(method, path) {
  try {
    const next = await call(method, path);
    if (next) show(next);
  } catch {
    // followState shows that the device does not answer
  }
}

for (const button of document.querySelectorAll("[data-post], [data-delete]")) {
  const [method, path] = button.dataset.post ? ["POST", button.dataset.post] : ["DELETE", button.dataset.delete];
  button.addEventListener("click", () => sendAction(method, path));
}
byId("again").addEventListener("click", () => {
  byId("looks").replaceChildren();
  sendAction("POST", "/v1/teaching");
});
byId("name").addEventListener("input", updateLearnButton);

byId("teaching").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (byId("learn").disabled) return;
  byId("learn").disabled = true;
  try {
    const label = byId("name").value.trim();
    const negative = byId("negative").checked;
    learnt = await call("POST", "/v1/taught", { label, category: byId("category").value || null, negative });
    byId("learnt-label").textContent = learnt.label;
    byId("learnt-text").textContent =
      learnt.recognised === 0
        ? learnt.negative
          ? "But I would still name it. Teach me more sides of it under the same name."
          : "But I would not recognise it yet. Teach me more sides of it under the same name."
        : learnt.negative
        ? "From now on I do not name it. Show it to me again to try."
        : "From now on I know it. Show it to me again to try.";
    const warnings = learnt.concerns.filter((one) => one.kind in WARNINGS);
    byId("learnt-concerns").replaceChildren(...warnings.map((one) => element("li", "", WARNINGS[one.kind](one.other))));
    byId("learnt-concerns").hidden = warnings.length === 0;
    document.activeElement.blur();
    show(await call("GET", "/v1/state"));
  } catch (error) {
    byId("problem").textContent = "I could not learn it: " + error.message;
    byId("problem").hidden = false;
    updateLearnButton();
  }
});

async function closeLearnt() {
  learnt = null;
  show(await call("GET", "/v1/state"));
}
byId("learnt-done").addEventListener("click", closeLearnt);
byId("undo").addEventListener("click", async () => {
  await sendAction("DELETE", "/v1/taught/" + learnt.item);
  await closeLearnt();
});

async function listTaught() {
  const { taught } = await call("GET", "/v1/taught");
  byId("taught-none").hidden = taught.length > 0;
  byId("taught-items").replaceChildren(
    ...taught.reverse().map((item) => {
      const row = element("li");
      const img = element("img");
      img.alt = "";
      setPicture(img, pictureOf(item.item));
      const text = element("span", "", item.label);
      const when = item.looks + (item.looks === 1 ? " picture, " : " pictures, ") + item.taught_at.slice(0, 10);
      text.append(element("small", "", when + (item.negative ? ", never named" : item.retired ? ", now in the gallery" : "")));
      const forget = element("button", "", "Forget");
      forget.addEventListener("click", async () => {
        if (forget.textContent === "Forget") forget.textContent = "Really?";
        else {
          await sendAction("DELETE", "/v1/taught/" + item.item);
          await listTaught();
        }
      });
      row.append(img, text, forget);
      return row;
    }),
  );
}
byId("show-taught").addEventListener("click", async () => {
  await listTaught();
  byId("taught").showModal();
});
byId("close-taught").addEventListener("click", () => byId("taught").close());

followState();
followPicture();
