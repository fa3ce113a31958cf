"use strict";
function sortBy(head, next) {
  const table = head.closest("table"), heads = [...head.parentElement.cells], index = heads.indexOf(head);
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", next);
  const key = row => {
    const cell = row.cells[index], number = parseFloat(cell?.dataset.value);
    return Number.isNaN(number) ? cell?.textContent.trim() ?? "" : number;
  };
  const sign = next === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter(row => !row.classList.contains("heading"));
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;  // cells without a value stay last
      return sign * (typeof x === "number" ? x - y : x.localeCompare(y));
    });
    body.append(...rows);
  }
}
for (const table of document.querySelectorAll("main table")) {
  for (const head of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    head.querySelector("button")?.addEventListener("click", () =>
      sortBy(head, head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending"));
  }
}
// A sorted view has an address: #sort=TABLE:COLUMN:ascending, columns counted from 0.
const wanted = /^#sort=([^:]+):(\d+):(ascending|descending)$/.exec(decodeURIComponent(location.hash));
if (wanted) {
  const table = document.getElementById(wanted[1]);
  const head = table && table.tHead.rows[table.tHead.rows.length - 1].cells[Number(wanted[2])];
  if (head) { sortBy(head, wanted[3]); table.scrollIntoView(); }
}
// A table that is wider than its place says so.
const scrolls = new ResizeObserver(seen => requestAnimationFrame(() => {
  for (const { target } of seen) target.toggleAttribute("data-scrolls", target.scrollWidth > target.clientWidth + 1);
}));
document.querySelectorAll(".scroll").forEach(box => scrolls.observe(box));
const cells = [...document.querySelectorAll("details.cell")];
const closeOthers = open => cells.forEach(cell => { if (cell !== open) cell.open = false; });
// Beside its cell and inside the window, wherever page and table are scrolled to.
function place(cell) {
  const pop = cell.querySelector(".pop"), at = cell.querySelector("summary").getBoundingClientRect(), room = document.documentElement;
  const size = pop.getBoundingClientRect(), below = at.bottom + 5 + size.height <= room.clientHeight - 8;
  pop.style.left = `${Math.max(8, Math.min(at.left, room.clientWidth - size.width - 8))}px`;
  pop.style.top = `${below ? at.bottom + 5 : Math.max(8, at.top - size.height - 5)}px`;
}
for (const cell of cells) {
  cell.addEventListener("toggle", () => { if (cell.open) { closeOthers(cell); place(cell); } });
}
for (const moved of ["scroll", "resize"]) {
  addEventListener(moved, () => cells.forEach(cell => { if (cell.open) place(cell); }), { capture: true, passive: true });
}
// On paper nothing can be opened: what is folded is printed open, and folded again.
const folds = [...document.querySelectorAll("details.fold")];
let folded = [];
addEventListener("beforeprint", () => {
  folded = folds.filter(fold => !fold.open);
  folded.forEach(fold => { fold.open = true; });
});
addEventListener("afterprint", () => folded.forEach(fold => { fold.open = false; }));
document.addEventListener("click", event => { if (!event.target.closest("details.cell")) closeOthers(null); });
document.addEventListener("keydown", event => { if (event.key === "Escape") closeOthers(null); });
