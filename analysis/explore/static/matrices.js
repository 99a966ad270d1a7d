// Every method's matrix; each cell leads to its images.

import { at, decimals, fill, make, name as named, rove, say, watched } from "/static/tools.js";

let last = ""; // the cell that was chosen, to come back to
const ready = [];

export function begin(context) {
  at("matrix-controls").addEventListener("change", () => {
    const { metric, condition } = at("matrix-controls").elements;
    context.go("matrices", { metric: metric.value, condition: condition.value }, { instead: true });
  });
  at("matrix-controls").addEventListener("submit", (event) => event.preventDefault());
  ready.push(rove(at("attribution-table"), "button"));
}

export function show(context, { metric = "", condition = "" }) {
  const before = context.matrixState;
  context.matrixState = { metric, condition };
  const grid = context.grid();
  const same = grid && (metric || grid.metric) === grid.metric && (condition || "clean") === grid.condition;
  at("images-back").href = location.hash || "#/matrices";
  if (grid && (same || JSON.stringify(before) === JSON.stringify(context.matrixState))) update(context);
  else context.read();
}

export function focus() {
  const cell = last ? document.querySelector(`[data-cell="${CSS.escape(last)}"]`) : null;
  cell?.focus();
  return Boolean(cell);
}

export function update(context) {
  const grid = context.grid();
  if (!grid) return;
  const { metric, condition } = at("matrix-controls").elements;
  fill(metric, grid.metrics.length ? grid.metrics.map(({ name, words }) => [name, words]) : [[grid.metric, "AUROC"]], grid.metric);
  fill(condition, grid.conditions.map((name) => [name, name]), grid.condition);
  const focused = document.activeElement?.dataset?.cell;
  at("methods").replaceChildren(...grid.methods.map((method) => card(context, grid, method)));
  if (!grid.methods.length) at("methods").append(make("p", {}, "This grid has no detection by a method: its report has the rest."));
  attribution(context, grid);
  ready.forEach((one) => one());
  if (focused) document.querySelector(`[data-cell="${CSS.escape(focused)}"]`)?.focus();
}

function card(context, grid, method) {
  const of = grid.metrics.find(({ name }) => name === grid.metric);
  const words = of?.words ?? grid.metric;
  const head = make("tr", {}, make("th", { scope: "col" }, "tested on"),
    ...method.columns.map((column) => make("th", { scope: "col" }, named(column.label))));
  const rows = grid.generators.map((generator, row) => make("tr", {}, make("th", { scope: "row" }, named(generator)),
    ...method.columns.map((column, place) => cell(context, grid, method, column, generator, method.values[row][place], of, words))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  const scroll = watched(make("div", { class: "scroll" }, table));
  const means = method.means.filter(({ value }) => value != null).map(({ name, value }) => `${name} ${decimals(value)}`).join(", ");
  const left = method.trials.total - method.trials.finished;
  const part = make("section", { class: method.columns.length > 5 ? "card wide" : "card", "aria-label": method.label }, make("h3", {}, method.label),
    left ? make("p", { class: "hint" }, `${method.trials.finished} of ${method.trials.total} trials finished`) : null,
    method.note ? make("p", { class: "hint" }, method.note) : null, scroll,
    means ? make("p", { class: "hint" }, `${words}: ${means}`) : null);
  rove(part, "button.cell")();
  return part;
}

function cell(context, grid, method, column, generator, value, of, words) {
  if (!column.runs.length) return make("td", {}, make("span", { class: "none" }, column.state || "none"));
  const own = column.own.includes(generator);
  const key = `${method.variant}/${column.trained_on}/${generator}`;
  const seeds = column.runs.length < column.planned ? `, ${column.runs.length} of ${column.planned} seeds` : "";
  const button = make("button", {
    type: "button", class: `cell${own ? " own" : ""}`, tabindex: -1, "data-cell": key,
    "aria-label": `${words} ${decimals(value)}, trained on ${column.label}, tested on ${generator}${seeds}: show its images`,
    onclick: () => { last = key; open(context, grid, column.runs[0].id, generator); },
  }, value == null ? "images" : decimals(value), seeds ? make("small", {}, seeds.slice(2)) : null);
  tint(button, value, of);
  return make("td", {}, button);
}

function tint(element, value, of) {
  if (value == null || !of) return;
  const chance = of.chance ?? 0;
  const better = of.higher_is_better ? value - chance : chance - value;
  const room = better > 0 ? (of.higher_is_better ? 1 - chance : chance) : (of.higher_is_better ? chance : 1 - chance);
  element.style.setProperty("--heat", Math.min(1, Math.abs(better) / (room || 1)).toFixed(3));
  if (better < 0) element.classList.add("below");
}

const open = (context, grid, run, cell, made_by = "") => context.go("images", {
  run, cell, made_by, condition: grid.condition === "clean" ? "" : grid.condition, metric: grid.metric,
});

function attribution(context, grid) {
  const methods = grid.attribution.filter(({ classes }) => classes.length);
  at("attribution").hidden = !methods.length;
  if (!methods.length) return;
  const classes = methods[0].classes.map(({ name }) => name);
  const of = { chance: null, higher_is_better: true };
  at("attribution-table").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "method"), ...classes.map((name) => make("th", { scope: "col" }, named(name))))),
    make("tbody", {}, ...methods.map((method) => make("tr", {}, make("th", { scope: "row" }, named(method.label)),
      ...classes.map((name) => {
        const value = method.classes.find((one) => one.name === name)?.value;
        const key = `attribution/${method.variant}/${name}`;
        const button = make("button", {
          type: "button", class: "cell", tabindex: -1, "data-cell": key,
          "aria-label": `attribution by ${method.label}, accuracy ${decimals(value)} on ${name}: show its images`,
          onclick: () => { last = key; open(context, grid, method.runs[0].id, "all", name === "overall" ? "" : name); },
        }, decimals(value));
        tint(button, value, of);
        return make("td", {}, button);
      })))));
}
