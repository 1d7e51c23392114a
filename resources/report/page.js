"use strict";
// Tables are sorted by a click on a head (numbers from the largest on), filtered as one types.
for (const box of document.querySelectorAll(".table")) {
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const key = (row, at) => row.cells[at].dataset.key ?? row.cells[at].textContent.trim();
  const heads = [...box.querySelectorAll("thead th")];
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => {
    const number = head.classList.contains("number");
    const last = head.getAttribute("aria-sort") ?? (number ? "ascending" : "descending");
    const up = last === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort((a, b) => {
      const [x, y] = [key(a, at), key(b, at)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return (number ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
    });
    body.append(...rows);
  }));
  const input = box.previousElementSibling;
  if (input?.type !== "search") continue;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
