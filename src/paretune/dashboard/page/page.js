// What every page has: the switch of themes and the filter of a table. The page works without.
"use strict";
(() => {
  const remember = (name, value) => {
    const age = value ? 31536000 : 0;
    document.cookie = `${name}=${value}; path=/; max-age=${age}; SameSite=Strict`;
  };
  const themes = document.getElementById("themes");
  themes.hidden = false;
  themes.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const theme = button.dataset.themeChoice;
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    remember("paretune_theme", theme);
    for (const one of themes.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button));
  });

  const filter = (input) => {
    const table = document.getElementById(input.dataset.filter);
    const said = document.getElementById("filter-said");
    if (!table) return;
    const wanted = input.value.trim().toLocaleLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = wanted !== "" && !row.textContent.toLocaleLowerCase().includes(wanted);
      if (!row.hidden) shown += 1;
    }
    if (said) said.textContent = wanted ? said.dataset.text.replace("{n}", String(shown)) : "";
  };
  document.addEventListener("input", (event) => {
    if (event.target.matches("[data-filter]")) filter(event.target);
  });
  window.paretune = {
    said: JSON.parse(document.getElementById("said").textContent),
    fill: (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole)),
    lang: document.documentElement.lang,
    // After a part of the page was replaced: its filter holds on, its figures are drawn.
    renewed: () => {
      for (const input of document.querySelectorAll("[data-filter]")) filter(input);
      document.dispatchEvent(new Event("paretune:renewed"));
    },
  };
})();
