// Draws the figures of a page with Vega, interpreted, so that the page's policy needs no eval. Where that fails the
// data of the figure, which stand below it as a table, remain.
"use strict";
(() => {
  const narrow = matchMedia("(max-width: 40rem)");
  const formatLocale = JSON.parse(document.getElementById("number-locale").textContent);
  const specs = () => {
    const found = {};
    for (const block of document.querySelectorAll("script.specs")) Object.assign(found, JSON.parse(block.textContent));
    return found;
  };
  const draw = async (ink, spec) => {
    const place = document.createElement("div");
    try {
      await vegaEmbed(place, spec, {
        ast: true,
        renderer: "svg",
        actions: false,
        defaultStyle: false,
        formatLocale,
        tooltip: { disableDefaultStyle: true },
      });
      // The picture as a whole has a name and its data a table: Vega's nameless groups would only be read as noise.
      for (const svg of place.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
      ink.replaceChildren(place);
    } catch (error) {
      ink.classList.add("failed");
      console.warn(error);
    }
  };
  let turn = 0;
  const all = async () => {
    const mine = ++turn;
    const known = specs();
    for (const ink of document.querySelectorAll(".ink")) {
      const pair = known[ink.dataset.figure];
      const spec = pair && pair[narrow.matches ? 1 : 0];
      if (!spec) continue;
      if (!ink.firstChild && typeof spec.height === "number") ink.style.minHeight = `${spec.height + 60}px`;
      await draw(ink, spec);
      if (mine !== turn) return; // the page changed meanwhile; the newer turn draws it
    }
    document.documentElement.dataset.drawn = String(turn);
  };
  narrow.addEventListener("change", all);
  document.addEventListener("paretune:renewed", all);
  all();
})();
