// Points by t-SNE or UMAP that show their picture.

import { askJson, at, fill, make, say } from "/static/tools.js";
import { openPhotograph } from "/static/photograph.js";

// The report's colours (Okabe and Ito) and shapes; real images are drawn in the colour of the text.
const COLOURS = ["#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442"];
const SHAPES = ["triangle", "square", "diamond", "down", "plus", "cross"];
const EDGE = 0.03;
let found = null, chosen = -1, timer = 0, asked = 0;

export function begin(context) {
  at("points-controls").addEventListener("submit", (event) => event.preventDefault());
  at("points-controls").addEventListener("change", () =>
    context.go("points", chosenControls(), { instead: true }));
  const canvas = at("canvas");
  canvas.addEventListener("pointermove", (event) => choose(context, near(event)));
  canvas.addEventListener("click", (event) => { const index = near(event); choose(context, index); open(context); });
  canvas.addEventListener("keydown", (event) => key(context, event));
  at("point-open").addEventListener("click", () => open(context));
  new ResizeObserver(() => draw()).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { legend(); draw(); });
}

const NAMES = { tsne: "t-SNE", umap: "UMAP" };

function chosenControls() {
  const { run, by } = at("points-controls").elements;
  return by.value === "tsne" ? { run: run.value } : { run: run.value, by: by.value };
}

export const update = (context) => show(context, found ? { run: found.run, by: found.kind } : {});

export async function show(context, { run = "", by = "tsne" }) {
  const methods = (context.grid()?.attribution ?? []).filter(({ runs }) => runs.length);
  const options = methods.flatMap(({ label, runs }) => runs.map(({ id, seed }) =>
    [id, runs.length > 1 ? `${label}, seed ${seed}` : label]));
  fill(at("points-controls").elements.run, options, run);
  if (!options.length) { say(at("points-said"), "No attribution trial is finished, so there are no points."); return; }
  const id = options.some(([value]) => value === run) ? run : options[0][0];
  at("points-controls").elements.run.value = id;
  const kind = by in NAMES ? by : "tsne";
  at("points-controls").elements.by.value = kind;
  if (found?.run === id && found.kind === kind) { draw(); return; }
  found = null; chosen = -1;
  at("point").hidden = true;
  draw();
  await wait(context, id, kind, ++asked);
}

async function wait(context, run, kind, turn) {
  clearTimeout(timer);
  try {
    const answer = await askJson(`/api/points/${run}`, { by: kind });
    if (turn !== asked) return;
    if (answer.state === "computing") {
      say(at("points-said"), `${NAMES[kind]} is being computed, for ${answer.seconds} s so far …`);
      timer = setTimeout(() => { if (!at("points").hidden) wait(context, run, kind, turn); else found = null; }, 1000);
      return;
    }
    found = answer;
    say(at("points-said"), `${found.images.length} images.`);
    at("points-note").textContent = `${NAMES[kind]}: ${found.note}. The same points as in the report${kind === "umap" ? " with --projection umap" : ""}.`;
    at("canvas").setAttribute("aria-label", `${NAMES[kind]} points of ${found.images.length} test images by ${found.label}`);
    legend();
    draw();
  } catch (error) {
    if (turn === asked) say(at("points-said"), error.message);
  }
}

const colour = (number) => {
  const name = found.classes[number], first = found.classes[0] === "real" ? 1 : 0;
  return name === "real" ? getComputedStyle(document.body).color : COLOURS[(number - first) % COLOURS.length];
};
const shape = (number) => (found.classes[number] === "real" ? "disc"
  : SHAPES[(number - (found.classes[0] === "real" ? 1 : 0)) % SHAPES.length]);

function mark(pen, kind, x, y, size) {
  pen.beginPath();
  if (kind === "disc") pen.arc(x, y, size * 0.85, 0, 7);
  else if (kind === "square") pen.rect(x - size * 0.8, y - size * 0.8, size * 1.6, size * 1.6);
  else if (kind === "plus" || kind === "cross") {
    const turned = kind === "cross" ? Math.PI / 4 : 0;
    for (let arm = 0; arm < 4; arm++) {
      const angle = turned + arm * Math.PI / 2;
      pen.moveTo(x, y);
      pen.lineTo(x + size * Math.cos(angle - 0.35), y + size * Math.sin(angle - 0.35));
      pen.lineTo(x + size * Math.cos(angle + 0.35), y + size * Math.sin(angle + 0.35));
      pen.closePath();
    }
  } else {
    const corners = { triangle: [[0, -1], [0.95, 0.8], [-0.95, 0.8]], down: [[0, 1], [0.95, -0.8], [-0.95, -0.8]],
      diamond: [[0, -1.1], [1, 0], [0, 1.1], [-1, 0]] }[kind];
    corners.forEach(([dx, dy], place) => pen[place ? "lineTo" : "moveTo"](x + dx * size, y + dy * size));
    pen.closePath();
  }
  pen.fill();
}

function legend() {
  if (!found) { at("legend").replaceChildren(); return; }
  at("legend").replaceChildren(...found.classes.map((name, number) => {
    const small = make("canvas", { width: 32, height: 32, "aria-hidden": "true" });
    const pen = small.getContext("2d");
    pen.fillStyle = colour(number);
    mark(pen, shape(number), 16, 16, 11);
    return make("li", {}, small, ` ${name}`);
  }));
}

const place = (value, side) => (EDGE + value * (1 - 2 * EDGE)) * side;

function draw() {
  const canvas = at("canvas"), box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  if (!box.width) return;
  const side = Math.round(box.width * ratio);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, side, side);
  if (!found) return;
  const size = (found.images.length > 3000 ? 2.5 : 4) * ratio;
  pen.globalAlpha = 0.75;
  for (let number = 0; number < found.classes.length; number++) {
    pen.fillStyle = colour(number);
    const kind = shape(number);
    for (let index = 0; index < found.images.length; index++) {
      if (found.numbers[index] === number) mark(pen, kind, place(found.x[index], side), place(found.y[index], side), size);
    }
  }
  pen.globalAlpha = 1;
  if (chosen < 0) return;
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--focus");
  pen.beginPath();
  pen.arc(place(found.x[chosen], side), place(found.y[chosen], side), 9 * ratio, 0, 7);
  pen.stroke();
}

function near(event) {
  if (!found) return -1;
  const box = at("canvas").getBoundingClientRect();
  const x = (event.clientX - box.x) / box.width, y = (event.clientY - box.y) / box.height;
  let best = -1, least = Infinity;
  for (let index = 0; index < found.images.length; index++) {
    const far = (place(found.x[index], 1) - x) ** 2 + (place(found.y[index], 1) - y) ** 2;
    if (far < least) { least = far; best = index; }
  }
  return best;
}

function choose(context, index) {
  if (!found || index < 0 || index === chosen) return;
  chosen = index;
  const image = found.images[index], name = found.classes[found.numbers[index]];
  at("point").hidden = false;
  at("point-picture").src = `/thumbnail/${image}?${new URLSearchParams({ condition: "clean", data: context.grid()?.data ?? "" })}`;
  const words = `${name === "real" ? "real" : `made by ${name}`}, photograph ${found.sources[index]}`;
  at("point-picture").alt = words;
  at("point-said").textContent = words;
  draw();
}

function open(context) {
  if (found && chosen >= 0) openPhotograph(context, found.images[chosen]);
}

function key(context, event) {
  if (!found) return;
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(context); return; }
  const way = ways[event.key];
  if (!way) return;
  event.preventDefault();
  if (chosen < 0) { choose(context, 0); return; }
  let best = -1, least = Infinity;
  for (let index = 0; index < found.images.length; index++) {
    const dx = found.x[index] - found.x[chosen], dy = found.y[index] - found.y[chosen];
    const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
    if (ahead <= 0 || aside > ahead) continue; // within 45 degrees of the arrow
    const far = Math.hypot(ahead, aside);
    if (far < least) { least = far; best = index; }
  }
  choose(context, best);
}
