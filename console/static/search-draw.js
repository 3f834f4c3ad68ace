// Draws boxes and silhouettes over a picture, as SVG in the picture's pixels.

const SVG = "http://www.w3.org/2000/svg";
const CELLS = 64;

const element = (name, attributes = {}) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** Return the path of a silhouette's cells in a square of the picture: one rectangle for each run of a row. */
const silhouettePath = (base64, [x0, y0, x1]) => {
  const bytes = atob(base64);
  const size = (x1 - x0) / CELLS;
  const isSet = (row, column) => (bytes.charCodeAt(row * 8 + (column >> 3)) >> (7 - (column & 7))) & 1;
  let path = "";
  for (let row = 0; row < CELLS; row += 1) {
    for (let column = 0; column < CELLS; column += 1) {
      if (!isSet(row, column)) continue;
      const first = column;
      while (column < CELLS && isSet(row, column)) column += 1;
      path += `M${x0 + first * size} ${y0 + row * size}h${(column - first) * size}v${size}h${-(column - first) * size}z`;
    }
  }
  return path;
};

/** Draw objects {box, name, isKnown, silhouette, silhouette_box} over the <img> of a figure of a width and height. */
export const drawObjects = (figure, width, height, objects, choose) => {
  figure.querySelector("svg")?.remove();
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const scale = width / Math.max(1, figure.clientWidth || width);
  const groups = objects.map((one, number) => {
    const [x0, y0, x1, y1] = one.box;
    const group = element("g", { class: one.isKnown ? "" : "unknown" });
    const box = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    if (one.silhouette) group.append(element("path", { d: silhouettePath(one.silhouette, one.silhouette_box) }));
    group.append(element("rect", { ...box, class: "halo" }));
    const rect = element("rect", box);
    rect.append(element("title"));
    rect.firstChild.textContent = one.name;
    rect.addEventListener("click", () => choose(number));
    group.append(rect);
    if (objects.length > 1) {
      const side = 22 * scale;
      const x = Math.min(x0, width - side);
      const y = Math.max(0, y0 - side > 0 ? y0 - side : y0);
      group.append(element("rect", { class: "tag", x, y, width: side, height: side }));
      const text = element("text", { x: x + side / 2, y: y + side * 0.72, "text-anchor": "middle", "font-size": 14 * scale });
      text.textContent = String(number + 1);
      group.append(text);
    }
    svg.append(group);
    return group;
  });
  figure.append(svg);
  return (chosen) => groups.forEach((group, number) => group.classList.toggle("chosen", number === chosen));
};
