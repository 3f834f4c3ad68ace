// The gallery's pages: keys, the arrows of the grid, the two kinds of deletion, and pages that wait for a task.

const field = (target) => target.closest?.("input, select, textarea, dialog[open]");

const columns = (links) => {
  const top = links[0].getBoundingClientRect().top;
  return links.filter((one) => Math.abs(one.getBoundingClientRect().top - top) < 4).length || 1;
};

const move = (event) => {
  const links = [...document.querySelectorAll("[data-grid] a")];
  if (!links.length) return;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(links), ArrowUp: -columns(links) }[event.key];
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + step));
  if (at < 0 && step < 0) return;
  links[next].focus();
  event.preventDefault();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || field(event.target)) return;
  if (event.key === "/") {
    const find = document.querySelector("[data-find]");
    if (find) {
      find.focus();
      find.select();
      event.preventDefault();
    }
  } else if (event.key === "c") {
    location.assign("/gallery/-/changes");
  } else if (event.key.startsWith("Arrow")) {
    move(event);
  }
});

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("[data-deletion]");
  if (form && event.target.name === "urgent") {
    for (const one of form.querySelectorAll("[data-urgent]")) one.hidden = one.dataset.urgent !== event.target.value;
  }
});

// a task that runs in [data-reload-when-done] shows the page again when it has ended
document.body.addEventListener("htmx:afterSettle", () => {
  const task = document.querySelector("[data-reload-when-done] [data-task-state]");
  if (task && task.dataset.taskState === "done") location.reload();
});
