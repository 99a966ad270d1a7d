"use strict";
// Sort a table by a column: numbers as numbers, text as text, missing values last; a second click reverses the order.
for (const table of document.querySelectorAll("table:not(.heat)")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows];
      rows.sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
// A picture that was scaled down shows in full size on a click or the Enter key.
for (const box of document.querySelectorAll(".picture")) {
  box.addEventListener("click", () => box.classList.toggle("large"));
  box.addEventListener("keydown", (event) => { if (event.key === "Enter") box.classList.toggle("large"); });
}
// A table or picture that is wider than its box says so.
const watch = new ResizeObserver((entries) => {
  for (const box of new Set(entries.map(({ target }) => target.closest(".scroll")))) {
    box.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1);
  }
});
for (const box of document.querySelectorAll(".scroll")) {
  watch.observe(box);
  watch.observe(box.firstElementChild);
}
// A link into a closed fold opens it; printing opens all folds.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
reveal();
