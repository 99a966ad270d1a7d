// One photograph under all generators and methods, side by side.

import { askJson, at, fill, make, Maps, percent, say, signed } from "/static/tools.js";

const maps = new Maps();
let asked = 0, before = null, found = null, where = {}, question = {}, wanted = "";

at("photograph-close").addEventListener("click", () => at("photograph").close());
at("photograph").addEventListener("close", () => { maps.clear(); asked++; before?.focus(); });
at("photograph").addEventListener("click", (event) => { if (event.target === at("photograph")) at("photograph").close(); });
at("map-controls").addEventListener("submit", (event) => event.preventDefault());
at("map-controls").addEventListener("change", () => { wanted = ""; drawMaps(asked); });

export async function openPhotograph(context, image, { condition = "clean", metric = "", run = "" } = {}) {
  before = document.activeElement;
  const turn = ++asked;
  found = null;
  question = { condition, metric };
  wanted = run;
  try {
    const answer = await askJson(`/api/photograph/${image}`, question);
    if (turn !== asked) return;
    found = answer;
    where = { condition, data: context.grid()?.data ?? "" };
    say(at("photograph-alert"), "");
    draw(context, image, run);
  } catch (error) {
    if (turn !== asked) return;
    say(at("photograph-alert"), error.message);
    at("versions").replaceChildren();
    at("scores").replaceChildren();
  }
  if (!at("photograph").open) at("photograph").showModal();
  at("photograph-heading").focus();
  if (!found) return;
  drawMaps(turn);
  wait(image, turn);
}

const title = (version) => (version.made_by === "real" ? "real" : version.made_by);

function draw(context, image, run) {
  at("photograph-heading").textContent = `Photograph ${found.source}${found.condition === "clean" ? "" : `, ${found.condition}`}`;
  const words = new URLSearchParams(where);
  at("versions").replaceChildren(...found.versions.map((version) => {
    const picture = make("img", { src: `/picture/${version.id}?${words}`, alt: `${title(version)} version of the photograph`, decoding: "async" });
    picture.addEventListener("error", () => picture.parentElement?.replaceChildren("no picture"));
    const parts = [make("span", { class: "slot" }, picture)];
    if (version.area != null) {
      parts.push(make("span", { class: "slot" }, make("img", { src: `/mask/${version.id}?data=${where.data}`, alt: `mask of the ${title(version)} version: white is edited`, decoding: "async" })));
    } else parts.push(make("span", { class: "slot" }, "no mask"));
    parts.push(make("span", { class: "slot map", "data-image": version.id }));
    return make("li", { class: version.id === image ? "chosen" : "" }, make("figure", {},
      make("figcaption", {}, title(version),
        make("span", {}, version.made_by === "real" ? "the original" : version.area == null ? "no mask" : `${percent(version.area)} edited`)), ...parts));
  }));
  table(run);
}

function table(run) {
  const rows = [], options = [["", "no map"]];
  for (const method of found.methods) {
    rows.push(make("tr", { class: "method" }, make("th", { colspan: found.versions.length + 1, scope: "rowgroup" }, method.label)));
    for (const row of method.rows) {
      options.push([row.run, `${method.label}, trained on ${row.trained_on}`]);
      const cells = row.problem ? [make("td", { class: "wrong", colspan: found.versions.length }, `not known: ${row.problem.split("\n")[0]}`)]
        : row.scores.map((score, place) => make("td", { class: `${row.right[place] ? "right" : "wrong"}${row.own[place] ? " own" : ""}` },
          score == null ? "none" : `${row.right[place] ? "✓" : "✗"} ${signed(score)}`));
      rows.push(make("tr", {}, make("th", { scope: "row" }, `trained on ${row.trained_on}`), ...cells));
    }
  }
  const column = (version) => make("th", { scope: "col" }, title(version));
  at("scores").replaceChildren(make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "score"), ...found.versions.map(column))),
    make("tbody", {}, ...rows));
  say(at("scores-said"), found.missing ? `Reading the scores of ${found.missing} more detectors …` : "");
  fill(at("map-controls").elements.run, options, options.some(([id]) => id === run) ? run : "");
}

// Scores that nobody has asked for yet are read one run after the other.
async function wait(image, turn) {
  while (turn === asked && found.missing) {
    await new Promise((done) => setTimeout(done, 300));
    if (turn !== asked) return;
    try {
      const answer = await askJson(`/api/photograph/${image}`, question);
      if (turn !== asked) return;
      found = answer;
      const { run } = at("map-controls").elements;
      const chosen = run.value, had = run.options.length > 1;
      table(chosen || wanted);
      if (!had || run.value !== chosen) drawMaps(turn);
    } catch (error) {
      if (turn === asked) say(at("scores-said"), error.message);
      return;
    }
  }
}

async function drawMaps(turn) {
  maps.clear();
  const slots = at("versions").querySelectorAll(".map"), run = at("map-controls").elements.run.value;
  for (const slot of slots) { slot.hidden = !run; slot.replaceChildren(run ? "…" : ""); }
  say(at("map-said"), run ? "Loading the detector …" : "");
  if (!run) return;
  try {
    const { kind, note } = await askJson(`/api/maps/${run}`);
    if (turn !== asked || run !== at("map-controls").elements.run.value) return;
    say(at("map-said"), note + (kind ? " A white line is the border of the mask." : ""));
    for (const slot of slots) {
      slot.hidden = !kind;
      if (!kind) continue;
      maps.add(slot, `/map/${run}/${slot.dataset.image}?${new URLSearchParams(where)}`, `${kind} of the detector:`);
    }
  } catch (error) {
    if (turn !== asked) return;
    for (const slot of slots) slot.hidden = true;
    say(at("map-said"), error.message);
  }
}
