// Shows one camera at a time: a browser opens few connections to one host, and each viewer of a camera needs one.
"use strict";

const picture = document.getElementById("picture");
const message = document.getElementById("message");
const chosen = () => decodeURIComponent(location.hash.slice(1));
let cameras = [];

async function fetchJson(path) {
  const answer = await fetch(path, { cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function show() {
  const camera = cameras.includes(chosen()) ? chosen() : cameras[0];
  document.getElementById("cameras").replaceChildren(...cameras.map((name) => {
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(name)}`;
    link.textContent = name;
    if (name === camera) link.setAttribute("aria-current", "true");
    return link;
  }));
  picture.alt = `Live picture of camera ${camera}`;
  picture.src = `/live/${encodeURIComponent(camera)}`;
  message.textContent = "";
}

picture.addEventListener("error", async () => {
  message.textContent = "The picture ended. Trying again…";
  setTimeout(show, 3000);
});

async function poll() {
  const camera = cameras.includes(chosen()) ? chosen() : cameras[0];
  try {
    const { names } = await fetchJson(`/live/${encodeURIComponent(camera)}.json`);
    document.getElementById("names").replaceChildren(...names.map((name) => {
      const item = document.createElement("li");
      item.textContent = name;
      return item;
    }));
  } catch {
    // the picture says that the device does not answer
  }
  setTimeout(poll, 1000);
}

fetchJson("/live.json").then((found) => {
  cameras = found.cameras;
  addEventListener("hashchange", show);
  show();
  poll();
}).catch((error) => { message.textContent = error.message; });
