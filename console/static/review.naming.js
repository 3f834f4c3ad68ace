// The dialog that names a crop: known items are offered while one types; a new one gets its id from its label.
import { send } from "/static/console.js";
import { itemImage, make } from "/static/review.stage.js";

const $ = (id) => document.getElementById(id);
const WAIT_MS = 80;

/** Set the dialog up; `named` is called with {category, item, label}; an empty item: the id comes from the label. */
export const setUpNaming = (set, model, named) => {
  const [dialog, label, category, id, list] = ["naming", "naming-label", "naming-category", "naming-id", "naming-list"].map($);
  let found = [], marked = 0, asked = 0, about = null, opened = 0, timer;
  let listed = null; // the text that the list belongs to
  let acting = Promise.resolve();

  /** Read the list of what is typed; return whether nothing else was typed meanwhile. */
  const search = async () => {
    clearTimeout(timer);
    const number = ++asked;
    const text = label.value.trim();
    const query = new URLSearchParams({ text, crop: about.id });
    try {
      const answer = await send("GET", `/api/v1/review/${set}/items?${query}`);
      if (number !== asked) return false;
      found = answer.items;
      $("naming-categories").replaceChildren(...answer.categories.map((one) => make("option", { value: one })));
      if (!category.value && answer.categories.length === 1) [category.value] = answer.categories;
    } catch {
      if (number !== asked) return false;
      found = [];
    }
    listed = text;
    const typed = fold(label.value);
    marked = typed && !means(typed, found[0]) ? found.length : 0; // else: the new item
    draw();
    return true;
  };

  /** Keys act one after another, each on the list of what is typed, until the dialog closes. */
  const act = (what) => {
    const mine = opened;
    const isHere = () => dialog.open && opened === mine;
    const isFresh = () => listed === label.value.trim() || search();
    acting = acting.then(async () => { if (isHere() && (await isFresh()) && isHere()) what(); });
  };

  const draw = () => {
    const rows = found.map((one) => [one, make("img", { className: "thumb", alt: "", src: itemImage(model, one) }), make("span", {}, make("strong", {}, one.label), ` ${one.category} · ${one.item}`)]);
    if (label.value.trim()) rows.push([null, make("span", {}, "New item: ", make("strong", {}, label.value.trim()))]);
    marked = Math.max(0, Math.min(marked, rows.length - 1));
    list.replaceChildren(...rows.map(([one, ...parts], index) => {
      const row = make("li", { id: `naming-${index}`, role: "option", ariaSelected: String(index === marked) }, ...parts);
      row.addEventListener("click", () => { marked = index; take(one); });
      return row;
    }));
    label.setAttribute("aria-activedescendant", rows.length ? `naming-${marked}` : "");
    list.children[marked]?.scrollIntoView({ block: "nearest" });
  };

  const take = (one) => {
    const value = one ? { category: one.category, item: one.item, label: one.label } : { category: category.value.trim(), item: id.value.trim(), label: label.value.trim() };
    const wrong = !value.label ? "Type a label." : !value.category ? "Give its category: a new item belongs to one." : "";
    $("naming-wrong").hidden = !wrong;
    $("naming-wrong").textContent = wrong;
    if (wrong) { (value.label ? category : label).focus(); return; }
    dialog.close();
    named(value);
  };

  label.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, WAIT_MS); });
  label.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    act(() => {
      marked = (marked + step + list.children.length) % (list.children.length || 1);
      draw();
    });
  });
  $("naming-form").addEventListener("submit", (event) => {
    event.preventDefault();
    act(() => take(id.value.trim() ? null : found[marked] ?? null));
  });

  dialog.addEventListener("close", () => clearTimeout(timer));

  return (crop, count, fallback) => {
    about = crop;
    opened++;
    $("naming-title").textContent = count > 1 ? `Name ${count} crops` : "Name it";
    label.value = id.value = "";
    category.value = crop.category || fallback || crop.proposals?.[0]?.category || crop.proposed_category || "";
    $("naming-wrong").hidden = true;
    found = [];
    listed = null;
    draw();
    dialog.showModal();
    label.focus();
    search();
  };
};

const fold = (text) => text.normalize("NFKC").toLowerCase().trim().replace(/\s+/g, " ");

/** Return whether a folded text is the beginning of an item's label, or of its words' initials. */
const means = (typed, item) => {
  const label = item ? fold(item.label) : "";
  return item && (label.startsWith(typed) || label.split(" ").map((word) => word[0]).join("").startsWith(typed));
};
