// The frame: reads the grid again and again, and shows one view by the address behind "#".

import { askJson, at, say, watched } from "/static/tools.js";
import * as images from "/static/images.js";
import * as matrices from "/static/matrices.js";
import * as points from "/static/points.js";
import * as score from "/static/score.js";

for (const box of document.querySelectorAll(".scroll")) watched(box);
const views = { matrices, images, points, score };
const RUNNING = 3000, RESTING = 30000; // milliseconds between two readings
let grid = null, timer = 0, shown = "", broken = false;

function route() {
  const [name, words] = location.hash.replace(/^#\/?/, "").split("?");
  return [views[name] ? name : "matrices", Object.fromEntries(new URLSearchParams(words ?? ""))];
}

export const go = (name, parameters = {}, { instead = false } = {}) => {
  const words = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value != null));
  const hash = `#/${name}${words.size ? `?${words}` : ""}`;
  if (hash === location.hash) return;
  if (instead) { history.replaceState(null, "", hash); show(); } else location.hash = hash;
};

export const context = { go, grid: () => grid, matrixState: {} };

async function read() {
  clearTimeout(timer);
  try {
    const fresh = await askJson("/api/grid", context.matrixState);
    const changed = !grid || fresh.version !== grid.version || fresh.metric !== grid.metric
      || fresh.condition !== grid.condition;
    grid = fresh;
    head();
    if (broken) say(at("alert"), "");
    broken = false;
    if (changed && shown) views[shown].update?.(context);
  } catch (error) {
    broken = true;
    say(at("alert"), error.message);
  }
  const done = grid && grid.trials.finished === grid.trials.total;
  timer = setTimeout(read, done ? RESTING : RUNNING);
}

function head() {
  const { trials } = grid, rest = ["running", "pending", "failed", "interrupted"].filter((name) => trials[name]);
  document.title = `Explore: ${grid.experiment}`;
  at("title").textContent = `Explore: ${grid.experiment}`;
  const text = `${trials.finished} of ${trials.total} trials finished`
    + (rest.length ? `: ${rest.map((name) => `${trials[name]} ${name}`).join(", ")}` : "");
  say(at("trials"), text);
  at("progress").hidden = trials.finished === trials.total;
  at("progress").max = Math.max(1, trials.total);
  at("progress").value = trials.finished;
  say(at("notice"), [grid.problem && `The grid could not be read again: ${grid.problem}`, grid.pictures]
    .filter(Boolean).join("\n"));
}

function show() {
  const [name, parameters] = route();
  const other = name !== shown;
  if (other && at("photograph").open) at("photograph").close();
  for (const view of Object.keys(views)) at(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === (name === "images" ? "matrices" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (other) say(at("alert"), "");
  const first = !shown;
  shown = name;
  views[name].show(context, parameters, other);
  if (other && !first) {
    scrollTo(0, 0);
    if (!views[name].focus?.()) at(`${name}-heading`).focus();
  }
}

context.read = read;
for (const view of Object.values(views)) view.begin?.(context);
addEventListener("hashchange", show);
await read();
show();
