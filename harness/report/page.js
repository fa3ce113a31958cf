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
    head.querySelector("button").addEventListener("click", () =>
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
const cells = [...document.querySelectorAll("details.cell")];
const closeOthers = open => cells.forEach(cell => { if (cell !== open) cell.open = false; });
for (const cell of cells) {
  cell.addEventListener("toggle", () => {
    if (!cell.open) return;
    closeOthers(cell);
    const pop = cell.querySelector(".pop");
    pop.style.left = "0"; pop.style.right = "auto";
    if (pop.getBoundingClientRect().right > document.documentElement.clientWidth - 8) { pop.style.left = "auto"; pop.style.right = "0"; }
  });
}
document.addEventListener("click", event => { if (!event.target.closest("details.cell")) closeOthers(null); });
document.addEventListener("keydown", event => { if (event.key === "Escape") closeOthers(null); });
