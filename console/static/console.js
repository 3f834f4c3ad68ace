// What all pages share: requests to the API, messages, times in the reader's zone, and the keys' help.
// htmx forms post to the API with hx-swap="none"; the answer's `says` is shown, and `go` is the next page.

const toasts = document.getElementById("toasts");

/** Messages lie in the dialog that is open: whatever is outside of it is dimmed, and cannot be pressed or heard. */
const placeToasts = () => {
  const inFront = document.activeElement?.closest("dialog[open]") ?? [...document.querySelectorAll("dialog[open]")].at(-1);
  const holder = inFront ?? document.body;
  if (toasts.parentElement !== holder) holder.append(toasts);
};

export const show = (text, kind = "") => {
  placeToasts();
  const toast = document.createElement("div");
  toast.className = `toast ${kind}`;
  toast.textContent = text;
  if (kind === "bad") {
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => toast.remove());
    toast.append(close);
  } else {
    setTimeout(() => toast.remove(), 5000);
  }
  [...toasts.children].find((one) => one.className === toast.className && one.textContent === toast.textContent)?.remove();
  toasts.append(toast);
  while (toasts.children.length > 4) toasts.firstChild.remove();
};

/** Return why a request was refused. */
export const refusal = (status, answer) => {
  if (answer.reason === "no_token") return "You are logged out. Log in in another tab, come back to this one, and try again.";
  return answer.error || `The console answered ${status}.`;
};

/** Send JSON to the API. Returns the answer; throws an Error with the server's text, `status` and `reason`. */
export const send = async (method, path, body) => {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw Object.assign(new Error("The console cannot be reached. Nothing was changed; try again."), { status: 0 });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw Object.assign(new Error(refusal(response.status, answer)), { status: response.status, reason: answer.reason });
  }
  return answer;
};

/** Work that keys and clicks wait for, so that they act on its result. */
export class Pending {
  #work = null;

  get isEmpty() { return this.#work === null; }

  add(more) {
    const before = this.#work;
    const mine = (this.#work = more.finally(() => before).finally(() => { if (this.#work === mine) this.#work = null; }));
  }

  /** Act when all of it has ended, unless a dialog is open then. */
  async after(act) {
    while (this.#work) await this.#work;
    if (!document.querySelector("dialog[open]")) act();
  }
}

const PENDING = "finesight-said";

const follow = (answer) => {
  if (answer.go) {
    if (answer.says) sessionStorage.setItem(PENDING, answer.says);
    if (answer.go === ".") location.reload();
    else location.assign(answer.go);
  } else if (answer.says) {
    show(answer.says);
  }
};

export const writeTimes = (root = document) => {
  for (const one of root.querySelectorAll("time[datetime]:not([data-written])")) {
    const moment = new Date(one.dateTime);
    const options = one.dataset.day ? { dateStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
    one.textContent = new Intl.DateTimeFormat(undefined, options).format(moment);
    one.title = moment.toISOString();
    one.dataset.written = "1";
  }
};

const inField = (target) => target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), select, textarea, [contenteditable]");

document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !inField(event.target)) document.getElementById("keys").showModal();
});

// A change is sent once, however often Enter is pressed before the answer or the next page arrives.
let sending = new WeakSet();
window.addEventListener("pageshow", () => { sending = new WeakSet(); }); // also for a page that the browser restores
document.body.addEventListener("htmx:confirm", (event) => {
  if (event.detail.verb !== "get" && sending.has(event.detail.elt)) event.preventDefault();
});
document.body.addEventListener("htmx:beforeRequest", ({ detail }) => {
  if (detail.requestConfig.verb !== "get") sending.add(detail.elt);
});

document.body.addEventListener("htmx:afterRequest", (event) => {
  const { xhr, elt } = event.detail;
  sending.delete(elt);
  if (!(xhr.getResponseHeader("Content-Type") || "").startsWith("application/json")) {
    if (xhr.status === 0) show("The console cannot be reached. Nothing was changed; try again.", "bad");
    return;
  }
  const answer = JSON.parse(xhr.responseText || "{}");
  if (xhr.status >= 400) show(refusal(xhr.status, answer), "bad");
  else {
    elt.closest?.("dialog")?.close();
    if (answer.go && !answer.go.startsWith("/api/")) sending.add(elt); // another page follows
    follow(answer);
  }
});
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const type = event.detail.xhr.getResponseHeader("Content-Type") || "";
  if (type.startsWith("application/json")) event.detail.shouldSwap = false; // never shown as HTML
});
document.body.addEventListener("htmx:afterSwap", (event) => writeTimes(event.detail.target));

// <button data-opens="id-of-dialog">, <button data-closes>
document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const closer = event.target.closest?.("[data-closes]");
  if (closer) closer.closest("dialog").close();
});

// Holding Enter opens a dialog, but does not answer it. A dialog that destroys something focuses its other button.
document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter" && event.target.closest?.("dialog") && !event.target.matches("textarea")) event.preventDefault();
}, true);

// A closed dialog keeps the focus until the next frame: a key that comes before belongs to the page, not to it.
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.matches("dialog[open]:has(.danger)")) target.querySelector("[data-closes]")?.focus({ preventScroll: true });
    if (target.matches("dialog:not([open])") && target.contains(document.activeElement)) document.activeElement.blur();
  }
  placeToasts();
}).observe(document.body, { attributeFilter: ["open"], subtree: true });

writeTimes();
const area = document.querySelector("header nav [aria-current]");
if (area) area.parentElement.scrollLeft = area.offsetLeft - area.parentElement.clientWidth / 2; // on a phone, areas scroll
const said = sessionStorage.getItem(PENDING);
if (said) {
  sessionStorage.removeItem(PENDING);
  show(said);
}
