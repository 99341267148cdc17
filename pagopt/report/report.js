"use strict";
(() => {
  // Everything is on the page without this script; it adds quick tooltips, copy buttons, and to a comparison a button
  // that flips it.
  const flip = document.getElementById("flip");
  if (flip) flip.parentElement.hidden = false;
  const pairs = [...document.querySelectorAll(".task")].map((task) => {
    const before = task.querySelector(".shot.none img") || task.querySelector("img");
    const after = task.querySelector(".shot.last img");
    return { after, on: after.src, off: before.src };
  });
  flip?.addEventListener("click", () => {
    const pressed = flip.getAttribute("aria-pressed") !== "true";
    flip.setAttribute("aria-pressed", String(pressed));
    document.body.classList.toggle("flipped", pressed);
    for (const pair of pairs) pair.after.src = pressed ? pair.off : pair.on;
  });

  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll("svg title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (!target) return hide();
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const above = event.clientY - tip.offsetHeight - 12;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
  });
  document.addEventListener("scroll", hide, { passive: true });

  for (const block of document.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
})();
