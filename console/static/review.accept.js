// The dialog "accept all above": two sliders, a random sample to look at, and one decision for all.
import { send, show } from "/static/console.js";
import { cropImage, itemImage, make, percent } from "/static/review.stage.js";

const $ = (id) => document.getElementById(id);

/** Set the dialog up; `accepted` is called with the id of the decision, after the server has done it. */
export const setUpAccept = (set, model, accepted) => {
  const path = `/api/v1/review/${set}`;
  const similarity = $("accept-similarity"), margin = $("accept-margin");
  let cells = [], bounds = [], sample = null;
  const seen = new Set(), wrong = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const one of entries) if (one.isIntersecting) seen.add(Number(one.target.dataset.id));
    judge();
  }, { root: $("accept"), threshold: 0.6 });

  const count = () => {
    $("accept-similarity-text").textContent = percent(similarity.value / 100);
    $("accept-margin-text").textContent = percent(margin.value / 100);
    let shown = 0, crops = 0;
    for (const one of cells) if (one.similarity >= similarity.value && one.margin >= margin.value) { shown += one.shown; crops += one.crops; }
    const folded = crops > shown ? `, with ${crops - shown} near-duplicates ${crops} crops` : "";
    $("accept-count").textContent = `Would name ${shown} of ${cells.reduce((sum, one) => sum + one.shown, 0)} open crops${folded}.`;
    $("accept-draw").disabled = !shown;
    $("accept-sample").hidden = true;
    sample = null;
  };

  const draw = async () => {
    const wanted = { similarity: similarity.value / 100, margin: margin.value / 100 };
    const isWanted = () => wanted.similarity === similarity.value / 100 && wanted.margin === margin.value / 100;
    let drawn;
    $("accept-draw").disabled = true;
    try {
      drawn = await send("POST", `${path}/samples`, wanted);
    } catch (error) { show(error.message, "bad"); return; } finally { $("accept-draw").disabled = false; }
    if (!isWanted()) { count(); return; } // the sliders were moved meanwhile: it is a sample of something else
    sample = drawn;
    seen.clear();
    wrong.clear();
    $("accept-seed").textContent = `${sample.seed}, ${sample.sample.length} of ${sample.crops}`;
    watcher.disconnect();
    $("accept-cells").replaceChildren(...sample.sample.map((crop) => {
      const [first] = crop.proposals;
      const button = make("button", { type: "button", className: "pair", ariaPressed: "false" },
        make("img", { alt: "Crop", src: cropImage(crop, 256) }), make("img", { alt: "Item", src: itemImage(model, first) }),
        make("span", {}, `${first.label}, ${percent(first.similarity)}`));
      button.dataset.id = crop.id;
      button.addEventListener("click", () => {
        if (!wrong.delete(crop.id)) wrong.add(crop.id);
        button.ariaPressed = String(wrong.has(crop.id));
        judge();
      });
      watcher.observe(button);
      return make("li", {}, button);
    }));
    $("accept-sample").hidden = false;
    judge();
    $("accept-cells").querySelector("button").focus();
  };

  const judge = () => {
    if (!sample) return;
    const left = sample.sample.filter((one) => !seen.has(one.id)).length;
    const all = sample.sample.length;
    const bound = all === sample.crops ? "" : all === bounds.length - 1 ? ` Of all, likely fewer than ${percent(bounds[wrong.size])} are wrong.` : "";
    const advice = wrong.size ? " Those stay open. A higher similarity or lead accepts fewer, and surer ones." : "";
    $("accept-says").textContent = left ? `Scroll on: ${left} of ${all} were not shown yet.` : `${wrong.size} of ${all} are wrong.${bound}${advice}`;
    $("accept-says").className = `notice ${left ? "" : wrong.size ? "bad" : "good"}`;
    $("accept-do").disabled = left > 0;
    $("accept-do").textContent = `Name ${sample.crops - wrong.size} crops`;
  };

  const accept = async () => {
    const { id } = sample;
    $("accept-do").disabled = true;
    try {
      const task = await send("POST", `${path}/samples/${id}/accept`, { looked_at: [...seen], wrong: [...wrong] });
      for (;;) {
        const now = await send("GET", `/api/v1/tasks?key=${encodeURIComponent(task.key)}`);
        if (now.state === "running") {
          $("accept-says").textContent = `${now.done} of ${now.total} named…`;
          await new Promise((done) => setTimeout(done, 250));
          continue;
        }
        if (now.state !== "done") throw new Error(now.result);
        accepted(`accept-${id}`, now.result);
        return;
      }
    } catch (error) { show(error.message, "bad"); judge(); }
  };

  for (const one of [similarity, margin]) one.addEventListener("input", count);
  $("accept-draw").addEventListener("click", draw);
  $("accept-do").addEventListener("click", accept);

  return async () => {
    try {
      await send("POST", `${path}/rank`);
      ({ cells, bounds } = await send("GET", `${path}/cells`));
    } catch (error) { show(error.message, "bad"); return; }
    count();
    $("accept").showModal();
    similarity.focus();
  };
};
