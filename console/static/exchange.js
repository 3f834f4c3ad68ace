// Reads the page again when the task that it shows has ended.

document.body.addEventListener("htmx:afterSwap", () => {
  const task = document.querySelector("[data-task-state]");
  if (task && task.dataset.taskState !== "running") location.reload();
});
