(() => {
  // Without this script all pictures are there, too; it shows the one that is pointed at large.
  const plates = [...document.querySelectorAll(".plate")].map((plate) => ({
    picked: plate.querySelector(".picked"),
    shots: new Map([...plate.querySelectorAll("button[data-head]")].map((button) => [button.dataset.head, button])),
    on: null,
  }));
  const name = document.querySelector(".picked-name");
  let kept = "";
  const show = (head) => {
    for (const plate of plates) {
      const button = plate.shots.get(head);
      if (!button) continue;
      plate.on?.classList.remove("on");
      plate.on = button;
      button.classList.add("on");
      const [image, caption] = [plate.picked.querySelector("img"), plate.picked.querySelector("figcaption")];
      image.src = button.querySelector("img").src;
      image.alt = head;
      const bold = document.createElement("b");
      bold.textContent = head;
      caption.replaceChildren(bold, `: ${WORDS[head][0]}`);
      plate.picked.hidden = false;
    }
    name.textContent = WORDS[head][1];
  };
  const at = (event) => (event.target instanceof Element ? event.target.closest("[data-head]") : null);
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const cell = at(event);
      if (cell && cell.closest(".plate") && !kept) show(cell.dataset.head);
    });
  }
  document.addEventListener("click", (event) => {
    const cell = at(event);
    if (!cell) return;
    const head = cell.dataset.head;
    kept = kept === head && cell.closest(".plate") ? "" : head;
    show(head);
    if (!cell.closest(".plate")) document.getElementById("pictures").scrollIntoView({ behavior: "smooth" });
  });
  show(FIRST);
})();
