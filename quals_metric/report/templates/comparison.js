"use strict";
// Shows the rows that match the form. Without this script the page shows all rows, and no form.
const form = document.getElementById("filter");
const rows = [...document.querySelectorAll("main > section > .entry")].map((row) => {
  const copy = row.cloneNode(true);
  copy.querySelectorAll("sup").forEach((number) => number.remove());  // a mark's number would part its words
  return [row, plain(copy.textContent)];
});

function plain(text) {
  return text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ").trim();
}

function show() {
  const { text, highest, lowest, difference } = form.elements;
  const words = plain(text.value);
  let count = 0;
  for (const [row, content] of rows) {
    row.hidden = !(
      content.includes(words) &&
      ["", row.dataset.highest].includes(highest.value) &&
      ["", row.dataset.lowest].includes(lowest.value) &&
      Number(row.dataset.difference) >= Number(difference.value)
    );
    count += row.hidden ? 0 : 1;
  }
  document.getElementById("count").value = `${count} of ${rows.length} rows shown`;
}

form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
show();
