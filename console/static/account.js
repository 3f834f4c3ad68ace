// Logging in, new tokens, and the reader's zone for the audit log.
import { send, show } from "/static/console.js";

const login = document.getElementById("log-in");
login?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = login.querySelector("button");
  const problem = login.querySelector("[role=alert]");
  button.disabled = true;
  problem.hidden = true;
  try {
    const answer = await send("POST", "/api/v1/login", Object.fromEntries(new FormData(login)));
    location.assign(answer.go);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    button.disabled = false;
    login.elements.password.select();
  }
});

const newToken = document.getElementById("new-token");
newToken?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = Object.fromEntries(new FormData(newToken));
  try {
    const answer = await send("POST", "/api/v1/account/tokens", { ...body, days: Number(body.days) });
    const text = document.getElementById("made-token-text");
    text.value = answer.token;
    document.getElementById("made-token").showModal();
    text.select();
  } catch (error) {
    show(error.message, "bad");
  }
});
document.getElementById("copy-token")?.addEventListener("click", async () => {
  const text = document.getElementById("made-token-text");
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    show("copied");
  } catch {
    show("Press Ctrl+C to copy it."); // without TLS, browsers keep the clipboard to themselves
  }
});
document.getElementById("close-token")?.addEventListener("click", () => document.getElementById("made-token").close());
document.getElementById("made-token")?.addEventListener("close", () => location.reload());

for (const field of document.querySelectorAll("[data-zone-offset]")) field.value = new Date().getTimezoneOffset();
