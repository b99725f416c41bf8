// The page as a whole: which view is shown, language and theme, the key, and the list of adapters that all views share.

import { models, on, readKey, writeKey } from "./api.js";
import { adaptersView } from "./adapters.js";
import { byId, el } from "./elements.js";
import { healthView } from "./health.js";
import { problemText } from "./problems.js";
import { tableView } from "./table.js";
import { tryView } from "./try.js";
import { LANGUAGES, wordsOf, writeStatic } from "./words.js";

const RETRY_MS = 5_000;
const REFRESH_MS = 30_000;
const root = document.documentElement;

function remember(name, value) {
  try {
    localStorage.setItem(`paretune.${name}`, value);
  } catch {
    // storage is switched off: the choice lasts as long as the page
  }
}

const app = {
  words: wordsOf(root.lang in LANGUAGES ? root.lang : "en"),
  adapters: null, // null: not known yet
  adapter: (id) => app.adapters?.find((one) => one.id === id) ?? null,
  readyAdapters: () => (app.adapters ?? []).filter((one) => (one.state ?? "ready") === "ready"),
  refresh: () => loadAdapters(),
};

const views = {};
let current = "";
let problem = null; // why the list of adapters is not known

function redraw() {
  writeStatic(document, app.words);
  for (const view of Object.values(views)) view.redraw();
  drawBanner();
  drawTitle();
}

function drawTitle() {
  document.title = current ? `${app.words.say(`${current}_title`)} — paretune` : "paretune";
}

function drawBanner() {
  const banner = byId("banner");
  const visible = problem !== null && problem.kind !== "auth";
  const text = visible ? problemText(problem, app.words) : "";
  banner.hidden = !visible;
  if (banner.dataset.said === text + app.words.language) return; // an unchanged alert is not read out again
  banner.dataset.said = text + app.words.language;
  banner.replaceChildren(
    ...(visible ? [el("span", {}, text), el("button", { type: "button", onclick: loadAdapters }, app.words.say("again"))] : []),
  );
}

// ---- views

function go() {
  const asked = location.hash.slice(1);
  const name = asked in views ? asked : "try";
  if (name === current) return;
  const first = current === "";
  views[current]?.hide();
  current = name;
  for (const one of Object.keys(views)) byId(`view-${one}`).hidden = one !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  drawTitle();
  views[name].show();
  if (!first) {
    byId(`${name}-title`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

// ---- language and theme

function pressed(nodes, chosen, read) {
  for (const node of nodes) node.setAttribute("aria-pressed", String(read(node) === chosen));
}

function chooseLanguage(language) {
  app.words = wordsOf(language);
  root.lang = language;
  pressed(document.querySelectorAll("[data-language]"), language, (node) => node.dataset.language);
  redraw();
}

function chooseTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  pressed(document.querySelectorAll("[data-theme-choice]"), theme, (node) => node.dataset.themeChoice);
}

function wireSwitches() {
  for (const node of document.querySelectorAll("[data-language]")) {
    node.addEventListener("click", () => {
      remember("language", node.dataset.language);
      chooseLanguage(node.dataset.language);
    });
  }
  for (const node of document.querySelectorAll("[data-theme-choice]")) {
    node.addEventListener("click", () => {
      remember("theme", node.dataset.themeChoice);
      chooseTheme(node.dataset.themeChoice);
    });
  }
}

// ---- key

function drawKey() {
  byId("key-forget").hidden = !readKey();
}

function wireKey() {
  const form = byId("key");
  const field = byId("key-field");
  on("auth", () => {
    byId("key-said").textContent = readKey() ? app.words.say("key_wrong") : "";
    if (!form.hidden) return;
    form.hidden = false;
    field.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    writeKey(field.value.trim());
    byId("key-said").textContent = "";
    await loadAdapters();
    drawKey();
    if (problem?.kind === "auth") {
      field.select();
      return;
    }
    form.hidden = true;
    field.value = "";
    views[current].show();
    byId(`${current}-title`).focus();
  });
  byId("key-forget").addEventListener("click", () => {
    writeKey("");
    drawKey();
    app.adapters = null;
    redraw();
    loadAdapters();
  });
}

// ---- adapters

let timer = null;
let loading = null; // the request under way, which others wait for too

function loadAdapters() {
  loading ??= askForAdapters().finally(() => {
    loading = null;
  });
  return loading;
}

async function askForAdapters() {
  clearTimeout(timer);
  const before = JSON.stringify([app.adapters, problem?.kind, problem?.detail]);
  try {
    app.adapters = await models();
    problem = null;
  } catch (error) {
    problem = error;
  }
  if (JSON.stringify([app.adapters, problem?.kind, problem?.detail]) !== before) {
    for (const view of Object.values(views)) view.redraw();
    drawBanner();
  }
  if (problem?.kind !== "auth") timer = setTimeout(pulse, problem ? RETRY_MS : REFRESH_MS);
}

// A hidden page asks nothing; it asks at once when it is seen again.
function pulse() {
  if (document.hidden) timer = setTimeout(pulse, RETRY_MS);
  else loadAdapters();
}

function start() {
  Object.assign(views, {
    try: tryView(app),
    table: tableView(app),
    adapters: adaptersView(app),
    health: healthView(app),
  });
  wireSwitches();
  wireKey();
  on("alive", () => {
    if (problem?.kind === "down" && loading === null) loadAdapters();
  });
  chooseTheme(root.dataset.theme ?? "auto");
  chooseLanguage(app.words.language);
  drawKey();
  addEventListener("hashchange", go);
  go();
  root.classList.remove("waiting");
  loadAdapters();
}

start();
