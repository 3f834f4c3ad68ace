// Draws the current crop: large, in its picture, with its proposals and what else is named like them.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

export const cropImage = (crop, px) => `/api/v1/crops/${crop.id}/image?px=${px}&v=${crop.box.map(Math.round).join("-")}`;
export const itemImage = (model, { category, item, crop }) =>
  crop ? `/api/v1/crops/${crop}/image?px=128` : `/api/v1/models/thumbnail?${new URLSearchParams({ choice: model, category, item })}`;

export const make = (tag, properties = {}, ...children) => {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in one) one[name] = value;
    else one.setAttribute(name, value);
  }
  one.append(...children);
  return one;
};

export const percent = (share) => `${Math.round(100 * share)} %`;

export const stateText = (crop) =>
  ({ open: "", unknown: "unknown", nothing: "no object", item: crop.label || crop.item })[crop.state];

/** Draw a crop. `others`: crops of the same picture that are known; `choose`: called with the id of one of them. */
export const drawStage = (crop, { model, others, selected, may, alike, choose, accept }) => {
  $("large").src = cropImage(crop, 640);
  const state = stateText(crop);
  $("large").alt = state ? `Current crop, decided as ${state}` : "Current crop, open";
  const decided = crop.state === "open" ? "" : `Decided${crop.by ? ` by ${crop.by}` : ""}: ${state}. `;
  const expected = crop.state === "open" && crop.item ? `Expected: ${crop.label || crop.item}. ` : "";
  const seen = crop.proposed_category ? `Looks like ${crop.proposed_category}. ` : "";
  const many = crop.folded ? `Stands for ${crop.folded + 1} near-duplicates. ` : "";
  $("facts").textContent = decided + expected + many + seen + `${Math.round(crop.box[2] - crop.box[0])} × ${Math.round(crop.box[3] - crop.box[1])} px`;
  $("facts").title = $("facts").textContent;
  $("where").textContent = crop.name;
  $("where").title = crop.name;
  drawContext(crop, others, choose);
  drawProposals(crop, { model, may, alike, accept });
  const unfold = document.querySelector("[data-act=unfold]");
  unfold.hidden = !crop.folded || !may;
  unfold.querySelector("span").textContent = `Unfold ${crop.folded}`;
  const first = crop.proposals?.[0];
  const says = first ? `First proposal: ${first.label}, ${percent(first.similarity)}.` : "No proposal.";
  $("spoken").textContent = `Crop ${crop.id}${state ? `, ${state}` : ""}. ${says}${selected ? ` ${selected} selected.` : ""}`;
};

const drawContext = (crop, others, choose) => {
  const svg = $("context");
  svg.setAttribute("viewBox", `0 0 ${crop.width} ${crop.height}`);
  if (svg.dataset.picture !== String(crop.picture)) {
    svg.dataset.picture = crop.picture;
    svg.replaceChildren(element("image", { href: `/api/v1/pictures/${crop.picture}/image?px=1280`, width: crop.width, height: crop.height }));
  }
  for (const old of svg.querySelectorAll("rect")) old.remove();
  const rect = (one, name) => {
    const [x0, y0, x1, y1] = one.box;
    const drawn = element("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: name });
    svg.append(drawn);
    return drawn;
  };
  for (const one of others) {
    if (one.id !== crop.id) rect(one, one.state === "open" ? "other" : "decided").addEventListener("click", () => choose(one.id));
  }
  rect(crop, "under");
  rect(crop, "now");
};

const element = (tag, attributes) => {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
};

const drawProposals = (crop, { model, may, alike, accept }) => {
  const list = $("proposals");
  if (!crop.proposals?.length) {
    const text = crop.proposals ? "Nothing known is like it. Name it with N, or it is unknown: 0." : "No model has looked at it yet. You can name it already: N.";
    list.replaceChildren(make("li", { className: "none" }, text));
    return;
  }
  list.replaceChildren(...crop.proposals.map((one, index) => {
    const button = make("button", { type: "button", className: "proposal", disabled: !may },
      make("img", { className: "thumb", alt: "", src: itemImage(model, one) }),
      make("span", {}, make("strong", {}, make("kbd", {}, String(index + 1)), ` ${one.label}`), make("span", { className: "id" }, `${one.category} · ${one.item}`)),
      make("span", {}, make("meter", { min: 0, max: 1, value: Math.max(0, one.similarity), ariaLabel: "Similarity" }),
        make("span", { className: "likeness" }, `${percent(one.similarity)} ${one.crop ? "like one that you decided" : "like the gallery"}`)),
      make("span", { className: "alike" }, ...alike(one).map((id) => make("img", { alt: "", src: `/api/v1/crops/${id}/image?px=64`, loading: "lazy" }))));
    button.addEventListener("click", () => accept(index));
    return make("li", {}, button);
  }));
};

/** Ask for the pictures of crops that come soon. */
export const preload = (crops, model) => {
  for (const crop of crops) {
    new Image().src = cropImage(crop, 640);
    for (const one of crop.proposals || []) new Image().src = itemImage(model, one);
  }
};
