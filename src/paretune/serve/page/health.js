// View 4: is the service well, and how much does it do. Refreshed while it is looked at, and only then.

import { status } from "./api.js";
import { announce, bar, byId, el, svg } from "./elements.js";
import { isNumber, NONE } from "./numbers.js";
import { problemText } from "./problems.js";

const EVERY_MS = 3_000;
const KEPT = 60; // points of the line: three minutes
const LINE_WIDTH = 600;
const LINE_HEIGHT = 60;
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

// Texts a second between two looks; a counter that fell was a restart.
export function rates(history) {
  return history.slice(1).map((now, index) => {
    const before = history[index];
    const seconds = (now.at - before.at) / 1000;
    return seconds > 0 && now.rows >= before.rows ? (now.rows - before.rows) / seconds : 0;
  });
}

function sparkline(history, words) {
  const values = rates(history);
  if (values.length < 2) return el("p", { class: "note line-space" }, words.say("health_no_sparkline"));
  const most = Math.max(...values, 1);
  const x = (index) => ((index + KEPT - 1 - values.length) / (KEPT - 2)) * LINE_WIDTH;
  const y = (value) => LINE_HEIGHT - 3 - (value / most) * (LINE_HEIGHT - 8);
  const path = values.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const time = words.numbers.duration(Math.round((history.at(-1).at - history[0].at) / 1000));
  const label = `${words.say("health_rows_a_second", { time })}: ${words.numbers.decimal(values.at(-1), 1)}`;
  return el(
    "div",
    { class: "line-space" },
    svg("svg", { class: "sparkline", viewBox: `0 0 ${LINE_WIDTH} ${LINE_HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, [
      svg("line", { class: "grid", x1: 0, x2: LINE_WIDTH, y1: y(0), y2: y(0) }),
      svg("path", { class: "risk", d: path }),
    ]),
    el("p", { class: "note" }, label),
  );
}

function tile(title, ...content) {
  return el("section", { class: "card tile" }, el("h3", {}, title), content);
}

function gauge(name, value, limit, words) {
  const { count } = words.numbers;
  const text = isNumber(limit) ? words.say("health_of", { value: count(value), limit: count(limit) }) : count(value);
  return el("div", { class: "gauge" }, el("p", { class: "line spread" }, el("span", {}, name), el("span", {}, text)), bar(limit ? value / limit : 0, "strong"));
}

function stateTile(now, words) {
  const key = now.draining ? "health_draining" : now.ready ? "health_ready" : "health_not_ready";
  const notes = [
    isNumber(now.uptime_seconds) ? words.say("health_since", { time: words.numbers.duration(Math.round(now.uptime_seconds)) }) : "",
    now.precision ? words.say("health_precision", { precision: now.precision }) : "",
  ].filter(Boolean);
  return tile(
    words.say("health_state"),
    el("p", { class: `verdict ${now.ready && !now.draining ? "good" : "bad"}` }, words.say(key)),
    now.reason ? el("p", { class: "note warn" }, now.reason) : null,
    el("p", { class: "note" }, notes.join(" · ")),
  );
}

function queueTile({ queue = {} }, words) {
  return tile(
    words.say("health_queue"),
    gauge(words.say("health_requests"), queue.requests, queue.max_requests, words),
    gauge(words.say("health_queue_tokens"), queue.tokens, queue.max_tokens, words),
  );
}

function loadTile({ load = {} }, history, words) {
  const notes = [];
  if (isNumber(load.rows_total)) notes.push(words.plural("health_rows", load.rows_total));
  if (isNumber(load.refused_total)) notes.push(words.plural("health_refused", load.refused_total));
  const speed = isNumber(load.tokens_per_second) ? words.plural("health_tokens_per_second", Math.round(load.tokens_per_second)) : NONE;
  const drawn = tile(words.say("health_throughput"), el("p", { class: "verdict" }, speed), sparkline(history, words), el("p", { class: "note" }, notes.join(" · ")));
  drawn.classList.add("wide");
  return drawn;
}

function memoryTile({ memory = {} }, words) {
  const { size } = words.numbers;
  const limited = isNumber(memory.limit_bytes) && memory.limit_bytes > 0;
  return tile(
    words.say("health_memory"),
    el("p", { class: "verdict" }, size(memory.rss_bytes)),
    limited ? bar(memory.rss_bytes / memory.limit_bytes, "strong") : null,
    limited ? el("p", { class: "note" }, words.say("health_memory_of", { limit: size(memory.limit_bytes) })) : null,
  );
}

function slotsTile({ slots = {} }, names, words) {
  const resident = slots.resident ?? [];
  const chip = (digest) => {
    const merged = digest === slots.merged ? ` · ${words.say("health_merged")}` : "";
    return el("li", { class: "class", title: digest }, (names.get(digest) ?? digest.slice(0, 12)) + merged);
  };
  const notes = [];
  if (isNumber(slots.max)) notes.push(words.plural("health_slots", slots.max, { used: words.numbers.count(resident.length) }));
  if (isNumber(slots.swaps)) notes.push(words.plural("health_swaps", slots.swaps));
  return tile(
    words.say("health_adapters"),
    resident.length ? el("ul", { class: "classes" }, resident.map(chip)) : el("p", { class: "note" }, words.say("health_none_resident")),
    el("p", { class: "note" }, notes.join(" · ")),
  );
}

// Names of the digests behind them, several where a name has several versions.
function namesOf(adapters) {
  const names = new Map();
  for (const model of adapters ?? []) {
    for (const digest of [model.root, ...Object.keys(model.versions ?? {})]) names.set(digest, model.id);
  }
  return names;
}

export function healthView(app) {
  const tiles = byId("health-tiles");
  const when = byId("health-when");
  const pauseButton = byId("health-pause");
  const history = []; // { at, rows }
  let visible = false;
  let paused = false;
  let timer = null;
  let last = null; // { now } or { error }
  let lastAt = null;
  let lastSaid = "";
  let looking = false;

  const wanted = () => visible && !paused && !document.hidden;

  function say() {
    const { words } = app;
    const text = last.error ? words.say("health_down") : words.say(last.now.ready ? "health_ready" : "health_not_ready");
    if (text !== lastSaid) announce(byId("health-said"), text); // a change alone is read out
    lastSaid = text;
  }

  function redraw() {
    const { words } = app;
    const { numbers } = words;
    pauseButton.textContent = words.say(paused ? "health_resume" : "health_pause");
    const time = lastAt ? new Intl.DateTimeFormat(words.language, CLOCK).format(lastAt) : NONE;
    const every = numbers.duration(EVERY_MS / 1000);
    when.textContent = paused ? words.say("health_paused") : words.say("health_when", { every, time });
    if (last === null) return tiles.replaceChildren(el("p", { class: "quiet" }, words.say("loading")));
    if (last.error) {
      const text = el("p", { class: "note" }, problemText(last.error, words));
      return tiles.replaceChildren(tile(words.say("health_state"), el("p", { class: "verdict bad" }, words.say("health_down")), text));
    }
    const { now } = last;
    tiles.replaceChildren(
      stateTile(now, words),
      queueTile(now, words),
      memoryTile(now, words),
      loadTile(now, history, words),
      slotsTile(now, namesOf(app.adapters), words),
    );
  }

  async function look() {
    clearTimeout(timer);
    if (looking || !wanted()) return;
    looking = true;
    try {
      last = { now: await status() };
      if (isNumber(last.now.load?.rows_total)) history.push({ at: Date.now(), rows: last.now.load.rows_total });
      history.splice(0, history.length - KEPT);
    } catch (error) {
      last = { error };
    }
    looking = false;
    lastAt = new Date();
    redraw();
    say();
    if (last.error?.kind !== "auth") timer = setTimeout(look, EVERY_MS); // the form for the key begins anew
  }

  pauseButton.addEventListener("click", () => {
    paused = !paused;
    redraw();
    look();
  });
  document.addEventListener("visibilitychange", look);

  return {
    redraw,
    show() {
      visible = true;
      look();
    },
    hide() {
      visible = false;
      clearTimeout(timer);
    },
  };
}
