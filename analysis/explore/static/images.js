// The images of a cell: filtered, sorted, a page at a time.

import { askJson, at, fill, make, Maps, percent, rove, say, signed } from "/static/tools.js";
import { openPhotograph } from "/static/photograph.js";

let state = {}, asked = 0, begun, watcher, known = "";
const maps = new Maps();

export function begin(context) {
  const form = at("filters");
  begun = rove(at("tiles"), "button");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    const { run, condition, cell, made_by, answer, sort, masks, maps: with_maps } = form.elements;
    for (const field of [form.elements.from, form.elements.to]) if (!field.reportValidity()) return;
    const share = (text) => (text === "" ? "" : String(Number(text) / 100));
    change(context, {
      run: run.value, condition: condition.value === "clean" ? "" : condition.value, cell: cell.value, made_by: made_by.value,
      answer: answer.value, from: share(form.elements.from.value), to: share(form.elements.to.value),
      sort: sort.value === "mistakes" ? "" : sort.value, masks: masks.checked ? "1" : "", maps: with_maps.checked ? "1" : "",
      page: "",
    });
  });
  at("previous").addEventListener("click", () => turn(context, -1));
  at("next").addEventListener("click", () => turn(context, 1));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || at("images").hidden || at("photograph").open || event.defaultPrevented) return;
    location.hash = at("images-back").getAttribute("href");
  });
  watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      maps.add(target, target.dataset.address, "map:");
    }
  }, { rootMargin: "200px" });
}

const change = (context, part) => context.go("images", { ...state, ...part }, { instead: true });
const turn = (context, by) => { change(context, { page: String(Number(state.page || 1) + by) }); at("images-heading").focus(); scrollTo(0, 0); };

export async function show(context, parameters) {
  state = parameters;
  const turnOf = ++asked;
  maps.clear();
  if (!parameters.run) { context.go("matrices", {}, { instead: true }); return; }
  const { masks, maps: with_maps, ...query } = parameters;
  try {
    const found = await askJson("/api/images", query);
    if (turnOf !== asked) return;
    say(at("alert"), "");
    await draw(context, found, turnOf);
  } catch (error) {
    if (turnOf !== asked) return;
    at("tiles").replaceChildren();
    say(at("images-said"), "");
    say(at("alert"), error.message);
  }
}

async function draw(context, found, turnOf) {
  const { run } = found, form = at("filters"), detection = run.task === "detection";
  at("images-heading").textContent = run.label;
  say(at("images-run"), `${detection ? "Detection" : "Attribution"}, trained on ${run.trained_on}, seed ${run.seed}. ${found.threshold}`);
  const { elements } = form, grid = context.grid();
  fill(elements.run, run.seeds.map(({ id, seed }) => [id, String(seed)]), run.id);
  fill(elements.condition, found.conditions.map((name) => [name, name]), found.condition);
  const fakes = found.made_by.filter((name) => name !== "real");
  fill(elements.cell, [...fakes.map((name) => [name, name]), ["all", "all"]], state.cell ?? "all");
  fill(elements.made_by, [["", "any"], ...found.made_by.map((name) => [name, name])], state.made_by ?? "");
  elements.answer.value = state.answer ?? "";
  elements.sort.value = state.sort || "mistakes";
  for (const name of ["from", "to"]) elements[name].value = state[name] ? String(Number((100 * state[name]).toPrecision(6))) : "";
  for (const name of ["from", "to"]) elements[name].disabled = !found.has_areas;
  elements.masks.checked = Boolean(state.masks);
  elements.maps.checked = Boolean(state.maps) && detection;
  elements.maps.disabled = !detection;
  say(at("images-said"), `${found.mistakes} of ${found.counted} answers are wrong. `
    + (found.total ? `${found.total} ${found.total === 1 ? "image" : "images"} shown.` : "No image fits these filters."));
  at("page-said").textContent = `page ${found.page} of ${found.pages}`;
  at("previous").disabled = found.page <= 1;
  at("next").disabled = found.page >= found.pages;
  let kind = "";
  const with_maps = elements.maps.checked && !grid?.pictures;
  tiles(context, found, with_maps);
  if (!elements.maps.checked) { say(at("maps-said"), ""); return; }
  if (known !== run.id) say(at("maps-said"), "Loading the detector …");
  try {
    const maps_of = await askJson(`/api/maps/${run.id}`);
    if (turnOf !== asked) return;
    known = run.id;
    kind = maps_of.kind;
    say(at("maps-said"), maps_of.note + (kind ? " A white line is the border of the mask." : ""));
  } catch (error) {
    if (turnOf !== asked) return;
    say(at("maps-said"), error.message);
  }
  for (const slot of at("tiles").querySelectorAll(".map")) {
    if (kind) watcher.observe(slot); else slot.replaceChildren("no map");
  }
}

function tiles(context, found, with_maps) {
  const masks = at("filters").elements.masks.checked;
  at("tiles").className = `tiles${masks && with_maps ? " widest" : masks || with_maps ? " wide" : ""}`;
  const data = context.grid()?.data ?? "", without = Boolean(context.grid()?.pictures);
  at("tiles").replaceChildren(...found.images.map((image) => {
    const words = new URLSearchParams({ condition: found.condition, data });
    const pictures = make("span", { class: "pictures" },
      without ? make("span", { class: "slot" }, "no picture")
        : slot(make("img", { src: `/thumbnail/${image.id}?${words}`, alt: "", loading: "lazy", decoding: "async" })));
    if (masks) pictures.append(image.area == null || without ? make("span", { class: "slot" }, "no mask")
      : slot(make("img", { src: `/mask/${image.id}?data=${data}`, alt: "", loading: "lazy", decoding: "async" })));
    if (with_maps) {
      pictures.append(make("span", { class: "slot map", "data-address": `/map/${found.run.id}/${image.id}?${words}` }, "…"));
    }
    const answer = found.run.task === "detection" ? (image.right === (image.made_by !== "real") ? "fake" : "real") : image.answer;
    const what = found.run.task !== "detection" ? "margin" : found.run.log_odds ? "log-odds" : "score";
    return make("li", {}, make("button", {
      type: "button", tabindex: -1, class: `tile${image.right ? "" : " wrong"}`, "data-image": image.id,
      onclick: () => openPhotograph(context, image.id, { condition: found.condition, metric: state.metric ?? "", run: found.run.id }),
    }, pictures,
    make("span", { class: "facts" },
      make("span", { class: "verdict" }, `${image.right ? "✓" : "✗"} answered ${answer}`), make("br"),
      `${what} ${signed(image.score)}`, make("br"),
      image.made_by === "real" ? "real" : `made by ${image.made_by}`,
      image.area == null ? "" : `, ${percent(image.area)} edited`, make("br"), `photograph ${image.source}`)));
  }));
  begun();
}

const slot = (image) => {
  image.addEventListener("error", () => image.parentElement?.replaceChildren("no picture"));
  return make("span", { class: "slot" }, image);
};
