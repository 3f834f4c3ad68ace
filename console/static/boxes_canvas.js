// The picture and its boxes as SVG: drawing, the gestures of mouse, pen and touch, and zoom. It changes no box itself:
// it tells its owner what a gesture wants.

const NS = "http://www.w3.org/2000/svg";
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const CLICK_PX = 4; // on the screen: a shorter way is a click

const make = (name, attributes, parent) => {
  const one = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  parent?.append(one);
  return one;
};

export const place = ([x0, y0, x1, y1]) =>
  `left ${Math.round(x0)}, top ${Math.round(y0)}, ${Math.round(x1 - x0)} by ${Math.round(y1 - y0)} pixels`;

export class Canvas {
  /** owner: select(key), begin(), change(key, box), draw(box) -> key, end(); mayEdit. */
  constructor(svg, owner) {
    this.svg = svg;
    this.owner = owner;
    this.groups = new Map(); // of boxes, by key
    this.pointers = new Map();
    this.gesture = null;
    this.size = [1, 1];
    this.view = { x: 0, y: 0, width: 1, height: 1 };
    this.image = make("image", { preserveAspectRatio: "none" }, svg);
    this.layer = make("g", {}, svg);
    this.others = make("g", {}, svg);
    this.front = make("g", {}, svg);
    for (const [name, act] of [["pointerdown", "down"], ["pointermove", "moved"], ["pointerup", "up"], ["pointercancel", "up"]]) {
      svg.addEventListener(name, (event) => this[act](event));
    }
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => this.refit()).observe(svg);
  }

  /** Show another picture. */
  show(picture, url) {
    this.size = [picture.width, picture.height];
    this.url = url;
    this.isLarge = false;
    for (const [key, value] of [["href", `${url}&px=1600`], ["width", this.size[0]], ["height", this.size[1]]]) {
      this.image.setAttribute(key, value);
    }
    this.layer.replaceChildren();
    this.groups.clear();
    this.gesture = null;
    this.fit();
  }

  /** Pixels of the picture for each pixel of the screen. */
  get scale() {
    const { width, height } = this.svg.getBoundingClientRect();
    return Math.max(this.view.width / Math.max(1, width), this.view.height / Math.max(1, height));
  }

  draw(boxes, selected, theirs = []) {
    const { scale } = this;
    const keep = new Set(boxes.map((box) => box.key));
    for (const [key, group] of this.groups) {
      if (keep.has(key)) continue;
      group.remove();
      this.groups.delete(key);
    }
    boxes.forEach((box, index) => this.drawBox(box, index, boxes.length, box.key === selected, scale));
    this.others.replaceChildren(...theirs.map((box) => this.rect("theirs", box)));
    this.drawHandles(boxes.find((box) => box.key === selected), scale);
  }

  drawBox(box, index, count, isSelected, scale) {
    let group = this.groups.get(box.key);
    if (!group) {
      group = make("g", { tabindex: "0", role: "button", "aria-roledescription": "box", "data-key": box.key }, this.layer);
      for (const name of ["halo", "edge"]) make("rect", { class: name }, group);
      make("text", { class: "caption" }, group);
      group.addEventListener("focus", () => this.owner.select(box.key));
      this.groups.set(box.key, group);
    }
    const name = box.label || box.item || box.category || "";
    group.setAttribute("class", `box ${box.isProposed ? "proposed" : ""} ${isSelected ? "selected" : ""}`);
    const kind = box.isProposed ? `, proposed with score ${box.score.toFixed(2)}` : "";
    group.setAttribute("aria-label", `Box ${index + 1} of ${count}${name ? `, ${name}` : ""}${kind}: ${place(box.box)}`);
    group.setAttribute("aria-pressed", isSelected);
    for (const rect of group.querySelectorAll("rect")) this.lay(rect, box.box);
    const text = group.lastChild;
    text.textContent = `${index + 1} ${name}`;
    text.setAttribute("font-size", 14 * scale);
    text.setAttribute("x", box.box[0] + 4 * scale);
    text.setAttribute("y", box.box[1] + 16 * scale);
    if (this.layer.children[index] !== group) this.layer.insertBefore(group, this.layer.children[index] || null);
  }

  drawHandles(box, scale) {
    this.front.replaceChildren();
    if (!box || !this.owner.mayEdit) return;
    const [x0, y0, x1, y1] = box.box;
    const grip = (this.isTouch ? 34 : 18) * scale;
    const side = 9 * scale;
    for (const name of HANDLES) {
      const x = name.includes("w") ? x0 : name.includes("e") ? x1 : (x0 + x1) / 2;
      const y = name.includes("n") ? y0 : name.includes("s") ? y1 : (y0 + y1) / 2;
      make("rect", { class: "handle", x: x - side / 2, y: y - side / 2, width: side, height: side }, this.front);
      const w = name === "n" || name === "s" ? Math.max(grip, x1 - x0 - grip) : grip;
      const h = name === "e" || name === "w" ? Math.max(grip, y1 - y0 - grip) : grip;
      make("rect", { class: "grip", "data-handle": name, x: x - w / 2, y: y - h / 2, width: w, height: h }, this.front);
    }
  }

  rect(kind, box) {
    return this.lay(make("rect", { class: kind }), box);
  }

  lay(rect, [x0, y0, x1, y1]) {
    const sides = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
    for (const [key, value] of Object.entries(sides)) rect.setAttribute(key, value);
    return rect;
  }

  focus(key) {
    (this.groups.get(key) || this.svg).focus({ preventScroll: true });
  }

  // Zoom --------------------------------------------------------------------------------------------------------------

  get isZoomed() {
    return this.view.width < this.whole().width * 0.999;
  }

  /** The view of the whole picture, in the shape of the element. */
  whole() {
    const { width, height } = this.svg.getBoundingClientRect();
    const scale = Math.max(this.size[0] / Math.max(1, width), this.size[1] / Math.max(1, height));
    const [w, h] = [Math.max(1, width) * scale, Math.max(1, height) * scale];
    return { x: (this.size[0] - w) / 2, y: (this.size[1] - h) / 2, width: w, height: h };
  }

  fit() {
    this.look(this.whole());
  }

  refit() {
    if (this.size[0] > 1 && !this.gesture) this.look(this.isZoomed ? this.inShape(this.view) : this.whole());
  }

  inShape(view) {
    const { width, height } = this.svg.getBoundingClientRect();
    return { ...view, height: (view.width * Math.max(1, height)) / Math.max(1, width) };
  }

  look(view) {
    this.view = view;
    this.svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    if (!this.isLarge && Math.max(...this.size) > 1600 && this.scale < Math.max(...this.size) / 1700) {
      this.isLarge = true; // zoomed so far that more pixels can be seen
      this.image.setAttribute("href", `${this.url}&px=4096`);
    }
    this.owner.viewed?.();
  }

  zoom(factor, at = [this.view.x + this.view.width / 2, this.view.y + this.view.height / 2]) {
    const whole = this.whole();
    const width = Math.min(whole.width, Math.max(this.view.width / factor, 16));
    if (width >= whole.width) {
      this.fit();
      return;
    }
    const share = width / this.view.width;
    const view = { x: at[0] - (at[0] - this.view.x) * share, y: at[1] - (at[1] - this.view.y) * share, width };
    this.look(this.kept(this.inShape(view)));
  }

  kept(view) {
    const x = Math.min(Math.max(view.x, -view.width / 2), this.size[0] - view.width / 2);
    const y = Math.min(Math.max(view.y, -view.height / 2), this.size[1] - view.height / 2);
    return { ...view, x, y };
  }

  /** Move the view so that a box is in it. */
  reveal([x0, y0, x1, y1]) {
    const { view } = this;
    const inside = x0 >= view.x && y0 >= view.y && x1 <= view.x + view.width && y1 <= view.y + view.height;
    if (!this.isZoomed || inside) return;
    this.look(this.kept({ ...view, x: (x0 + x1 - view.width) / 2, y: (y0 + y1 - view.height) / 2 }));
  }

  middle() {
    const { view } = this;
    const [left, top] = [Math.max(0, view.x), Math.max(0, view.y)];
    const [right, bottom] = [Math.min(this.size[0], view.x + view.width), Math.min(this.size[1], view.y + view.height)];
    const [w, h] = [Math.max(8, (right - left) / 4), Math.max(8, (bottom - top) / 4)];
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2].map(Math.round);
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey || this.isZoomed) event.preventDefault();
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY / 200), this.point(event));
    else if (this.isZoomed) {
      const { scale, view } = this;
      this.look(this.kept({ ...view, x: view.x + event.deltaX * scale, y: view.y + event.deltaY * scale }));
    }
  }

  // Gestures ----------------------------------------------------------------------------------------------------------

  point(event) {
    const frame = this.svg.getBoundingClientRect();
    const { scale, view } = this;
    const spare = [(frame.width * scale - view.width) / 2, (frame.height * scale - view.height) / 2];
    return [
      view.x - spare[0] + (event.clientX - frame.left) * scale,
      view.y - spare[1] + (event.clientY - frame.top) * scale,
    ];
  }

  down(event) {
    if (event.button !== 0) return;
    this.isTouch = event.pointerType === "touch";
    this.pointers.set(event.pointerId, event);
    this.svg.setPointerCapture?.(event.pointerId);
    if (this.pointers.size === 2) {
      this.stop();
      this.gesture = { kind: "pinch", ...this.fingers() };
      return;
    }
    event.preventDefault();
    const at = this.point(event);
    const handle = event.target.dataset?.handle;
    const key = handle ? this.owner.selected : this.owner.hit(at);
    if (key !== null) this.focus(key);
    else this.svg.focus({ preventScroll: true });
    if (key === null) this.owner.select(null);
    const kind = handle ? "resize" : key === null ? "draw" : "move";
    const from = key === null ? null : [...this.owner.boxOf(key)];
    this.gesture = { kind, handle, key, at, from, client: [event.clientX, event.clientY], began: false };
  }

  moved(event) {
    if (!this.pointers.has(event.pointerId)) return;
    this.pointers.set(event.pointerId, event);
    const { gesture } = this;
    if (!gesture) return;
    if (gesture.kind === "pinch") {
      this.pinch(gesture);
      return;
    }
    const way = Math.hypot(event.clientX - gesture.client[0], event.clientY - gesture.client[1]);
    if (!this.owner.mayEdit || (!gesture.began && way < CLICK_PX)) return;
    if (!gesture.began) {
      gesture.began = true;
      this.owner.begin();
    }
    this.apply(gesture, this.point(event));
  }

  apply(gesture, [x, y]) {
    const [dx, dy] = [Math.round(x - gesture.at[0]), Math.round(y - gesture.at[1])];
    if (gesture.kind === "draw") {
      const [ax, ay] = gesture.at;
      const box = [Math.min(ax, x), Math.min(ay, y), Math.max(ax, x), Math.max(ay, y)].map(Math.round);
      if (gesture.key === null) gesture.key = this.owner.draw(box);
      else this.owner.change(gesture.key, box);
    } else if (gesture.kind === "move") {
      const [x0, y0, x1, y1] = gesture.from;
      const mx = Math.min(Math.max(dx, -x0), this.size[0] - x1);
      const my = Math.min(Math.max(dy, -y0), this.size[1] - y1);
      this.owner.change(gesture.key, [x0 + mx, y0 + my, x1 + mx, y1 + my]);
    } else {
      let [x0, y0, x1, y1] = gesture.from;
      if (gesture.handle.includes("w")) x0 += dx;
      if (gesture.handle.includes("e")) x1 += dx;
      if (gesture.handle.includes("n")) y0 += dy;
      if (gesture.handle.includes("s")) y1 += dy;
      this.owner.change(gesture.key, [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]);
    }
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.gesture?.kind === "pinch" && this.pointers.size) return;
    this.stop();
  }

  stop() {
    if (this.gesture?.began) this.owner.end(this.gesture.key);
    this.gesture = null;
  }

  fingers() {
    const [a, b] = [...this.pointers.values()];
    const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    return { distance, centre: { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 } };
  }

  pinch(gesture) {
    if (this.pointers.size < 2) return;
    const now = this.fingers();
    const { scale, view } = this;
    const moved = [now.centre.clientX - gesture.centre.clientX, now.centre.clientY - gesture.centre.clientY];
    if (this.isZoomed) this.look(this.kept({ ...view, x: view.x - moved[0] * scale, y: view.y - moved[1] * scale }));
    this.zoom(now.distance / Math.max(1, gesture.distance), this.point(now.centre));
    Object.assign(gesture, now);
  }
}
