"use strict";
(() => {
  // A choice of reward, points of the front, a table that sorts, and pictures in the tooltips.
  for (const group of document.querySelectorAll(".choice")) {
    group.hidden = false;
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      for (const part of document.querySelectorAll(".through")) part.hidden = part.dataset.lens !== button.dataset.lens;
    });
  }

  const cards = [...document.querySelectorAll(".card")];
  const picks = [...document.querySelectorAll(".pick")];
  const select = (place) => {
    for (const card of cards) card.hidden = card.dataset.place !== place;
    for (const pick of picks) {
      pick.classList.toggle("picked", pick.dataset.pick === place);
      pick.setAttribute("aria-pressed", String(pick.dataset.pick === place));
    }
  };
  for (const pick of picks) {
    pick.setAttribute("tabindex", "0");
    pick.setAttribute("role", "button");
    pick.setAttribute("aria-label", pick.dataset.tip || `point ${pick.dataset.pick}`);
    pick.parentElement.setAttribute("role", "group");
    for (const kind of ["click", "focus", "pointerenter"]) pick.addEventListener(kind, () => select(pick.dataset.pick));
  }
  if (cards.length) select(cards[0].dataset.place);

  const table = document.querySelector(".sortable");
  const body = table.tBodies[0];
  for (const head of table.querySelectorAll("th[data-kind]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[head.cellIndex].dataset.sort;
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1); // what has none comes last, either way
        const numbers = Number.isFinite(Number(x)) && Number.isFinite(Number(y));
        return (numbers ? Number(x) - Number(y) : x.localeCompare(y)) * (up ? 1 : -1);
      };
      body.append(...[...body.rows].sort(order));
    });
  }

  const tip = document.getElementById("tip");
  const pictures = new Map([...document.querySelectorAll(".thumb img")].map((image) => [image.dataset.trial, image.src]));
  document.addEventListener("pointermove", (event) => {
    const dot = event.target instanceof Element ? event.target.closest("[data-trial]") : null;
    if (!dot || tip.hidden || !pictures.has(dot.dataset.trial)) return;
    const image = document.createElement("img");
    image.src = pictures.get(dot.dataset.trial);
    tip.prepend(image);
    const above = event.clientY - tip.offsetHeight - 12;
    tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
  });
})();
