// Pictures for the search pages: from a file, a drop, the clipboard or a camera; made small enough to send.

import { refusal, show } from "./console.js";

export const byId = (id) => document.getElementById(id);

/** Say what the search does; "": nothing. */
export const say = (text) => {
  byId("state").replaceChildren();
  if (!text) return;
  const spinner = document.createElement("span");
  spinner.className = "spinner";
  byId("state").append(spinner, text);
};

const SENT_AS_IS = ["image/jpeg", "image/png", "image/webp"];
const MOST_PIXELS = 25e6;
const MOST_BYTES = 20e6;
const LONGEST_PX = 4000;

/** Return the file as it is sent: as it is, or as a smaller JPEG where the browser can read what is too large. */
export const prepare = async (file) => {
  if (file.type === "image/svg+xml") return file; // the server says that this is no picture
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file; // such as TIFF: the server may read it
  }
  const pixels = bitmap.width * bitmap.height;
  if (SENT_AS_IS.includes(file.type) && pixels <= MOST_PIXELS && file.size <= MOST_BYTES) {
    bitmap.close();
    return file;
  }
  const factor = Math.min(1, LONGEST_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.93));
  return blob ? new File([blob], "picture.jpg", { type: "image/jpeg" }) : file;
};

/** Show a file in an <img>; resolves to whether the browser can. */
export const display = (img, source) =>
  new Promise((done) => {
    const old = img.dataset.blob;
    const url = typeof source === "string" ? source : URL.createObjectURL(source);
    img.onload = () => done(true);
    img.onerror = () => done(false);
    img.dataset.blob = typeof source === "string" ? "" : url;
    img.src = url;
    if (old) URL.revokeObjectURL(old);
  });

const pictureOf = (data) => [...(data?.files || [])].find((one) => one.type.startsWith("image/")) || data?.files?.[0];

/** Let a file be dropped on an element. */
export const acceptDrops = (element, got) => {
  for (const name of ["dragenter", "dragover"]) {
    element.addEventListener(name, (event) => {
      event.preventDefault();
      element.classList.add("over");
    });
  }
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const file = pictureOf(event.dataTransfer);
    if (file) got(file);
    else show("That is no file. Drop a picture from your disk.", "bad");
  });
};

/** A picture that is pasted anywhere on the page. */
export const acceptPaste = (got) => {
  document.addEventListener("paste", (event) => {
    const file = pictureOf(event.clipboardData);
    if (file) {
      event.preventDefault();
      got(file);
    } else if (!event.target.closest?.("input, textarea, dialog")) {
      show("The clipboard holds no picture. Copy the picture itself, not its address.", "bad");
    }
  });
};

/** An <input type=file>. */
export const acceptFile = (input, got) => {
  input.addEventListener("change", () => {
    if (input.files[0]) got(input.files[0]);
    input.value = "";
  });
};

const dialog = byId("camera");
const video = byId("video");
let stream = null;
let facing = "environment";
let taken = null;

const stop = () => {
  for (const track of stream?.getTracks() || []) track.stop();
  stream = null;
};

const start = async () => {
  stop();
  stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: facing, width: { ideal: 1920 } } });
  video.srcObject = stream;
};

/** Take a picture: with the camera in the page where the browser allows it, else with the phone's camera app. */
export const takePicture = async (input, got) => {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
    input.click();
    return;
  }
  try {
    await start();
  } catch (error) {
    if (error.name === "NotFoundError") show("This device has no camera. Choose a picture instead.", "bad");
    else show("The camera cannot be used. Allow it in the browser, or choose a picture.", "bad");
    return;
  }
  taken = got;
  dialog.showModal();
};

if (dialog) {
  dialog.addEventListener("close", stop);
  byId("turn").addEventListener("click", () => {
    facing = facing === "environment" ? "user" : "environment";
    start().catch(() => show("There is no other camera.", "bad"));
  });
  byId("shoot").addEventListener("click", () => {
    if (!video.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      if (blob) taken(new File([blob], "camera.jpg", { type: "image/jpeg" }));
    }, "image/jpeg", 0.95);
  });
}

/** On a phone, what was found lies below the picture: go there. */
export const scrollOnPhone = (element) => {
  if (matchMedia("(max-width: 900px)").matches) element.scrollIntoView({ block: "start" });
};

const BUSY_TRIES = 3;

/** Post a form of files and fields. Waits and tries again when the console is busy. */
export const post = async (path, files, fields, { signal, waiting }) => {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const file of files) form.append("files", file, file.name || "picture");
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, { method: "POST", body: form, headers: { Accept: "application/json" }, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The console cannot be reached. Try again.", { cause: error });
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    if (answer.reason !== "busy" || attempt >= BUSY_TRIES) {
      throw new Error(refusal(response.status, answer));
    }
    waiting?.(attempt);
    await new Promise((done) => setTimeout(done, 1500 * attempt));
    if (signal?.aborted) throw new DOMException("stopped", "AbortError");
  }
};
