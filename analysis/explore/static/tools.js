// What all views share: requests, elements, words for numbers, keys.

export const at = (id) => document.getElementById(id);

export async function ask(path, parameters = {}, options = {}) {
  const words = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value != null));
  let answer;
  try {
    answer = await fetch(words.size ? `${path}?${words}` : path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The page's command does not answer: it has ended. Start it again, and open the address it prints.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = text;
  try { said = JSON.parse(text).error ?? text; } catch { /* plain text of the server */ }
  throw new Error(said || `the server answered ${answer.status}`);
}

export const askJson = async (...words) => (await ask(...words)).json();

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const decimals = (value, digits = 3) => (value == null ? "none" : Number(value.toFixed(12)).toFixed(digits)); // as in the report
export const signed = (value) => (value == null ? "none" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);
export const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

export function fill(select, options, chosen) {
  const before = JSON.stringify([...select.options].map((option) => [option.value, option.text]));
  if (before !== JSON.stringify(options)) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  }
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

export function say(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

// One stop of the Tab key for many buttons: arrow keys, Home and End move between them.
export function rove(container, selector) {
  const items = () => [...container.querySelectorAll(selector)];
  const choose = (item, focus) => {
    for (const other of items()) other.tabIndex = other === item ? 0 : -1;
    if (focus) item.focus();
  };
  container.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (item) choose(item, false);
  });
  container.addEventListener("keydown", (event) => {
    const item = event.target.closest(selector), all = items();
    if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
    const index = all.indexOf(item);
    const next = { ArrowLeft: all[index - 1], ArrowRight: all[index + 1], Home: all[0], End: all.at(-1) }[event.key]
      ?? { ArrowUp: beyond(all, item, -1), ArrowDown: beyond(all, item, 1) }[event.key];
    if (!next) return;
    event.preventDefault();
    choose(next, true);
  });
  return () => { const all = items(); if (all.length && !all.some((item) => item.tabIndex === 0)) all[0].tabIndex = 0; };
}

function beyond(items, item, direction) {
  const middle = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
  const [x, y] = middle(item);
  let best = null, least = Infinity;
  for (const other of items) {
    const [otherX, otherY] = middle(other), down = (otherY - y) * direction;
    if (down < 4) continue;
    const far = down * 4 + Math.abs(otherX - x);
    if (far < least) { least = far; best = other; }
  }
  return best;
}

// A name that may be broken behind "_" alone.
export const name = (text) => {
  const words = make("span");
  for (const part of text.split(/(?<=_)/)) words.append(...(words.childNodes.length ? [make("wbr")] : []), part);
  return words;
};

// A box that is narrower than what it holds says that it scrolls.
const sizes = new ResizeObserver((entries) => {
  for (const box of new Set(entries.map(({ target }) => target.closest(".scroll")))) {
    box?.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1);
  }
});
export const watched = (box) => { sizes.observe(box); sizes.observe(box.firstElementChild); return box; };

// Maps, whose making takes long, one after the other, so that they do not keep thumbnails waiting.
export class Maps {
  constructor() { this.waiting = []; this.abort = new AbortController(); this.busy = false; }

  // Fills an element with the map at an address, or with the reason why there is none.
  add(slot, address, alt) { this.waiting.push([slot, address, alt]); this.next(); }

  clear() { this.waiting = []; this.abort.abort(); this.abort = new AbortController(); }

  async next() {
    if (this.busy || !this.waiting.length) return;
    this.busy = true;
    const [slot, address, alt] = this.waiting.shift();
    try {
      const answer = await ask(address, {}, { signal: this.abort.signal });
      const flat = answer.headers.get("Explore-Map") === "flat", url = URL.createObjectURL(await answer.blob());
      const image = make("img", { alt: flat ? `${alt} flat, no place stands out` : alt, onload: () => URL.revokeObjectURL(url) });
      image.src = url;
      slot.classList.toggle("noted", flat);
      slot.replaceChildren(image, flat ? make("span", { class: "flat" }, "flat: no place stands out") : "");
    } catch (error) {
      if (error.name !== "AbortError") slot.replaceChildren(error.message);
    }
    this.busy = false;
    this.next();
  }
}
