// A picture that is dropped, scored by any detection run.

import { askJson, at, decimals, fill, make, percent, say, signed } from "/static/tools.js";

const MEGABYTES = 64; // as the server takes
let busy = false;

export function begin(context) {
  at("score-controls").addEventListener("submit", (event) => event.preventDefault());
  const drop = at("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") take([...event.dataTransfer.files]);
    });
  }
  // A picture that misses the field must not replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  at("file").addEventListener("change", () => { take([...at("file").files]); at("file").value = ""; });
}

export const update = show;

export function show(context) {
  const options = (context.grid()?.methods ?? []).flatMap((method) => method.columns.flatMap((column) =>
    column.runs.map(({ id, seed }) => [id, `${method.label}, trained on ${column.label}, seed ${seed}`])));
  fill(at("score-controls").elements.run, options, at("score-controls").elements.run.value);
  at("file").disabled = !options.length;
  say(at("score-said"), options.length ? "" : "No detection trial is finished, so there is no detector yet.");
}

async function take(files) {
  const run = at("score-controls").elements.run.value;
  if (busy || !files.length || !run) return;
  busy = true;
  for (const file of files) {
    say(at("score-said"), `Scoring ${file.name}: the first picture of a detector takes longer …`);
    try {
      if (file.size > MEGABYTES * 2 ** 20) throw new Error(`a picture has at most ${MEGABYTES} MiB here`);
      if (!file.size) throw new Error("the file is empty");
      const answer = await askJson(`/api/score/${run}`, {}, { method: "POST", body: file });
      at("answers").prepend(card(file, answer));
      say(at("score-said"), `${file.name}: ${verdict(answer)}`);
    } catch (error) {
      say(at("score-said"), `${file.name}: ${error.message}`);
    }
  }
  busy = false;
}

const verdict = (answer) => (answer.verdict == null ? `no verdict: ${answer.reason}` : answer.verdict);

function card(file, answer) {
  const address = URL.createObjectURL(file);
  const picture = make("img", { src: address, alt: `the picture ${file.name}`, onload: () => URL.revokeObjectURL(address) });
  const figures = [make("figure", {}, picture, make("figcaption", {}, `${file.name}, ${answer.width} × ${answer.height}`))];
  if (answer.map) {
    figures.push(make("figure", {}, make("img", { src: blobOf(answer.map), alt: `${answer.map_kind} of ${answer.method}` }),
      make("figcaption", {}, answer.map_kind === "map" ? "the detector's own map" : "Grad-CAM of “fake”")));
  }
  const lines = [
    answer.verdict == null ? answer.reason : `${answer.log_odds ? "log-odds of fake" : "score"} ${signed(answer.score)}, fake above ${signed(answer.threshold)}`,
    answer.sure,
    answer.verdict != null && answer.reason ? answer.reason : "",
    answer.distance != null ? `distance from the training images: ${decimals(answer.distance, 2)} of the limit` : "",
    answer.attribution ? `most like: ${answer.attribution} (${percent(answer.attribution_probabilities[answer.attribution])})` : "",
    `${answer.method}, trained on ${answer.trained_on}`,
  ].filter(Boolean);
  return make("article", { class: "card answer" }, ...figures, make("div", { class: "facts" },
    make("p", { class: `verdict ${{ fake: "wrong", real: "" }[answer.verdict] ?? "none"}` }, answer.verdict ?? "no verdict"),
    ...lines.map((line) => make("p", {}, line))));
}

function blobOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
}
