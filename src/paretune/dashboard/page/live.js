// What runs now: asked every few seconds, only for what was appended since. The place in each run's events is kept here.
"use strict";
(() => {
  const { said, fill, lang } = window.paretune;
  const EVERY = 3000;
  const EVERY_LIST = 5000;
  const MOST_POINTS = 3000;
  const source = document.body.dataset.live;
  const runs = new Map(); // id → {at, points, steps, node parts}
  const byId = (id) => document.getElementById(id);
  const number = (value, digits) =>
    new Intl.NumberFormat(lang, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
  const duration = (seconds) => {
    const [value, unit] = seconds < 120 ? [seconds, "second"] : seconds < 7200 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
    return new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: unit === "hour" ? 1 : 0 }).format(value);
  };
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The part of the page that shows results, asked for anew: replaced unless the reader is in the middle of it.
  let shown = document.body.dataset.version;
  let failed = false;
  const renew = async () => {
    const part = byId("part");
    const busy = part.contains(document.activeElement) || part.querySelector("details[open]");
    if (busy && source) {
      byId("live-said").textContent = said.waiting;
      return;
    }
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const text = await answer.text();
    const next = new DOMParser().parseFromString(text, "text/html");
    const version = next.body.dataset.version;
    const fresh = next.getElementById("part");
    if (!fresh || version === shown) return;
    if (busy) {
      // In the list the reader may be typing a filter: only the rows are replaced.
      const rows = next.querySelector("#studies tbody");
      const old = part.querySelector("#studies tbody");
      if (!rows || !old || old.contains(document.activeElement)) return;
      old.replaceWith(document.importNode(rows, true));
    } else {
      part.replaceChildren(...[...fresh.childNodes].map((one) => document.importNode(one, true)));
    }
    shown = version;
    window.paretune.renewed();
    if (source) byId("live-said").textContent = said.new;
  };

  const card = (news) => {
    const node = element("article", "live-run");
    const title = element("h3", "", news.method);
    const parts = [];
    if (news.seed !== null) parts.push(fill(said.seed, { seed: news.seed }));
    if (news.rate) parts.push(fill(said.rate, { rate: news.rate }));
    const what = element("p", "note", parts.join(" · "));
    const phase = element("p", "live-phase");
    const bar = element("progress");
    bar.setAttribute("aria-label", news.method);
    const numbers = element("p", "live-numbers");
    const drawing = element("div", "live-curve");
    node.append(title, what, phase, bar, numbers, drawing);
    return { node, phase, bar, numbers, drawing };
  };

  const update = (news) => {
    const known = runs.get(news.id) || { points: [], steps: null, torn: 0, phase: "", parts: card(news) };
    if (news.restarted) Object.assign(known, { points: [], steps: null, torn: 0, phase: "" });
    known.at = news.at;
    known.points.push(...news.points);
    if (known.points.length > MOST_POINTS) known.points = known.points.filter((_, place) => place % 2 === 0);
    known.steps = news.steps ?? known.steps;
    known.phase = news.phase || known.phase;
    known.torn += news.torn;
    known.validation = news.validation || (news.restarted ? "" : known.validation);
    runs.set(news.id, known);
    const { phase, bar, numbers, drawing } = known.parts;
    const last = known.points[known.points.length - 1];
    phase.textContent = known.phase;
    const texts = [];
    if (last && known.steps) {
      bar.max = known.steps;
      bar.value = last[0];
      texts.push(fill(said.step, { step: last[0], steps: known.steps }));
      const first = known.points[Math.max(0, known.points.length - 50)];
      const pace = last[0] > first[0] ? (last[2] - first[2]) / (last[0] - first[0]) : 0;
      if (pace > 0 && last[0] < known.steps) texts.push(fill(said.left, { time: duration(pace * (known.steps - last[0])) }));
    } else if (last) {
      texts.push(fill(said.step_only, { step: last[0] }));
    }
    if (last && last[1] !== null) texts.push(fill(said.loss, { loss: number(last[1], 3) }));
    if (known.validation) texts.push(known.validation);
    if (known.torn) texts.push(fill(said.torn, { count: known.torn }));
    numbers.textContent = texts.join(" · ");
    if (news.points.length || news.restarted) {
      const label = fill(said.curve, { method: news.method });
      drawing.replaceChildren(window.paretune.curve(known.points, known.steps, label, (value) => number(value, value ? 2 : 0)));
    }
    return known.parts.node;
  };

  const ask = async () => {
    const query = new URLSearchParams({ lang });
    for (const known of runs.values()) query.append("at", known.at);
    const answer = await fetch(`${source}?${query}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const news = await answer.json();
    const state = byId("live-state");
    state.textContent = news.state_text;
    state.className = `state ${news.state}`;
    byId("live-done").textContent = news.done_text;
    byId("live-news").textContent = news.news_text;
    const here = new Set(news.runs.map((one) => one.id));
    for (const id of [...runs.keys()]) if (!here.has(id)) runs.delete(id);
    const nodes = news.runs.map(update);
    if (news.more) nodes.push(element("p", "note", fill(said.more, { count: news.more })));
    if (!nodes.length) nodes.push(element("p", "quiet", said.nothing));
    const place = byId("live-runs");
    if (nodes.length !== place.childNodes.length || nodes.some((one, at) => place.childNodes[at] !== one)) {
      place.replaceChildren(...nodes);
    }
    if (news.version !== shown) await renew();
  };

  const clock = async () => {
    try {
      if (!document.hidden) {
        if (source) await ask();
        else await renew();
        if (failed && source) byId("live-said").textContent = "";
        failed = false;
      }
    } catch {
      if (!failed && source) byId("live-said").textContent = said.lost;
      failed = true;
    }
    setTimeout(clock, source ? EVERY : EVERY_LIST);
  };
  if (source) clock();
  else setTimeout(clock, EVERY_LIST);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && source) ask().catch(() => {});
  });
})();
