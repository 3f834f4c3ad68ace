// Fleet: dialogs that the server fills with numbers of this moment, and forms whose answer may be a command to run.
import { send, writeTimes } from "./console.js";

const PENDING = "finesight-said"; // as in console.js: shown by the next page

document.body.addEventListener("htmx:afterSwap", ({ detail }) => {
  const dialog = detail.target;
  if (dialog.id !== "action" || dialog.open) return;
  writeTimes(dialog);
  const title = dialog.querySelector("h2");
  title.id = "action-title";
  dialog.setAttribute("aria-labelledby", title.id);
  dialog.showModal();
});

document.body.addEventListener("htmx:load", ({ detail }) => writeTimes(detail.elt));

const fieldsOf = (form) => {
  const body = {};
  for (const one of form.elements) {
    if (!one.name || (one.value === "" && !("empty" in one.dataset)) || (one.type === "checkbox" && !one.checked)) continue;
    body[one.name] = "list" in one.dataset ? [one.value] : one.value;
  }
  return body;
};

const alertOf = (form, text) => {
  const box = form.querySelector("[data-problem]");
  box.textContent = text;
  box.hidden = !text;
};

const showCommand = (form, answer) => {
  const shown = form.querySelector("pre");
  shown.textContent = answer.command;
  shown.hidden = false;
  alertOf(form, answer.waits_for.length ? `Devices see nothing of it yet: it waits for ${answer.waits_for.join(", ")}.` : "");
  form.querySelector("button[type=submit]").hidden = true;
  form.querySelector("[data-closes]").textContent = "Close";
  shown.focus();
};

document.addEventListener("submit", async (event) => {
  const form = event.target.closest?.("form[data-sends]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  alertOf(form, "");
  try {
    const answer = await send("POST", form.dataset.sends, fieldsOf(form));
    if (answer.command) return showCommand(form, answer);
    if (answer.says) sessionStorage.setItem(PENDING, answer.says);
    location.assign(answer.go || "/fleet/rollouts");
  } catch (error) {
    alertOf(form, error.message);
  } finally {
    button.disabled = false;
  }
});

document.addEventListener("input", (event) => {
  const form = event.target.closest?.("form[data-sends]");
  if (form) alertOf(form, "");
});
