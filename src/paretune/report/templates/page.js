// Figures are drawn already. The first touch of one swaps in the same figure with tooltips; where that fails the drawing stays.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("specs");
  const formatLocale = read("number-locale");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const wake = async (ink) => {
    const live = document.createElement("div");
    live.style.position = "absolute";
    live.style.visibility = "hidden";
    ink.append(live);
    try {
      await vegaEmbed(live, specs[ink.dataset.spec][Number(ink.dataset.width)], {
        ast: true, // expressions are interpreted: the page's policy allows no eval
        renderer: "svg",
        actions: false,
        defaultStyle: false,
        formatLocale,
        tooltip: { theme: dark.matches ? "dark" : "light" },
      });
      live.removeAttribute("style");
      ink.replaceChildren(live);
      ink.classList.add("live");
    } catch (error) {
      live.remove();
      console.warn(error);
    }
  };
  for (const ink of document.querySelectorAll(".ink")) {
    ink.addEventListener("pointerenter", () => wake(ink), { once: true });
  }
})();
