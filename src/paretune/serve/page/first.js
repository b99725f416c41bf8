// Before the first paint: the theme and the language that this reader chose, or the browser's.
// Not a module, so that nothing is drawn in the wrong colours first. Keys are shared with page.js.
"use strict";
(() => {
  let theme = null;
  let language = null;
  try {
    theme = localStorage.getItem("paretune.theme");
    language = localStorage.getItem("paretune.language");
  } catch {
    // storage is switched off: the browser's settings hold
  }
  const root = document.documentElement;
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const preferred = (navigator.languages || [navigator.language || "en"]).map((one) => one.slice(0, 2).toLowerCase());
  const browser = preferred.find((one) => one === "ru" || one === "en") || "en";
  root.lang = language === "ru" || language === "en" ? language : browser;
  root.classList.add("waiting");
})();
