"use strict";
(function () {
  // one strip of tiles at a time; without this script, and in print, all are shown
  const strips = Array.from(document.querySelectorAll(".strip"));
  const buttons = Array.from(document.querySelectorAll(".choose button"));
  function choose(name) {
    strips.forEach((strip) => { strip.hidden = strip.dataset.reading !== name; });
    buttons.forEach((button) => { button.setAttribute("aria-pressed", String(button.dataset.reading === name)); });
  }
  buttons.forEach((button) => button.addEventListener("click", () => choose(button.dataset.reading)));
  if (buttons.length) choose(buttons[0].dataset.reading);

  // tables sort by a click on a heading: by data-sort where a cell has it, as numbers where all are numbers
  function key(row, column) {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent.trim() : cell.dataset.sort;
  }
  function sort(table, column, heading) {
    const upwards = heading.getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const numeric = rows.every((row) => key(row, column) === "" || !Number.isNaN(Number(key(row, column))));
    rows.sort((a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what is not known stands last either way
      return (upwards ? 1 : -1) * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
    });
    rows.forEach((row) => body.appendChild(row));
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", upwards ? "ascending" : "descending");
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("thead th").forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => sort(table, column, heading));
    });
  });

  // what is linked to is opened, also where it stands in something folded
  function unfold() {
    const name = decodeURIComponent(location.hash.slice(1));
    const target = name && document.getElementById(name);
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  }
  window.addEventListener("hashchange", unfold);
  unfold();
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details.evidence").forEach((one) => { one.open = true; });
  });

  const save = document.querySelector(".save");
  if (save) save.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("data").textContent], { type: "application/json" }));
    link.download = "evidence.json";
    document.body.appendChild(link);
    link.click();
    link.remove();
  });
})();
