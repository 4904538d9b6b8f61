// Comfort only: everything is readable without it.
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (dot) => {
    tip.textContent = dot.dataset.tip;
    tip.hidden = false;
    const at = dot.querySelector(".mark").getBoundingClientRect(), box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - box.width / 2), innerWidth - box.width - 8);
    const top = at.top - box.height - 10;
    tip.style.left = `${left}px`;
    tip.style.top = `${top < 8 ? at.bottom + 10 : top}px`;
  };
  for (const dot of document.querySelectorAll("svg a")) {
    const title = dot.querySelector("title");
    dot.dataset.tip = title.textContent;
    dot.setAttribute("aria-label", title.textContent);
    title.remove();
    for (const event of ["pointerenter", "focus"]) dot.addEventListener(event, () => show(dot));
    for (const event of ["pointerleave", "blur"]) dot.addEventListener(event, () => { tip.hidden = true; });
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
