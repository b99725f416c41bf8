// View 3: every adapter as a card, with the evidence that it came with.

import { readKey, registry } from "./api.js";
import { curve } from "./curve.js";
import { byId, el } from "./elements.js";
import { isNumber } from "./numbers.js";
import { noAdapters } from "./problems.js";

const CLASSES_SHOWN = 8;
const DISCRETE = /parameters|count|rows/;
const METRIC_DIGITS = 3;
const COST_ORDER = ["adapter_bytes", "base_bytes", "latency_p50_seconds", "latency_p95_seconds"]; // then the others

// A cost's name ends in its unit: adapter_bytes, latency_1_seconds, energy_joules.
export function costText(name, value, words) {
  const { numbers } = words;
  if (name.endsWith("_bytes")) return numbers.size(value);
  if (name.endsWith("_seconds")) return numbers.duration(value);
  if (name.endsWith("_milliseconds") || name.endsWith("_ms")) return numbers.duration(value / 1000);
  return DISCRETE.test(name) || Number.isInteger(value) ? numbers.count(value) : numbers.decimal(value);
}

const named = (prefix, key, words) => (words.known(`${prefix}_${key}`) ? words.say(`${prefix}_${key}`) : key.replaceAll("_", " "));

function classes(labels, words) {
  const chip = (label) => el("li", { class: "class" }, label);
  const list = el("ul", { class: "classes" }, labels.slice(0, CLASSES_SHOWN).map(chip));
  if (labels.length <= CLASSES_SHOWN) return [list];
  const folded = el(
    "details",
    {},
    el("summary", {}, words.plural("more_classes", labels.length - CLASSES_SHOWN)),
    el("ul", { class: "classes" }, labels.slice(CLASSES_SHOWN).map(chip)),
  );
  return [list, folded];
}

function quality(model, words) {
  const { numbers } = words;
  const score = model.metric;
  if (!score || !isNumber(score.mean)) return [];
  const notes = [];
  if (isNumber(score.low) && isNumber(score.high)) {
    notes.push(words.say("card_interval", { range: numbers.range(score.low, score.high, METRIC_DIGITS) }));
  }
  if (isNumber(score.seeds)) notes.push(words.plural("card_seeds", score.seeds));
  if (isNumber(score.this_model)) notes.push(words.say("card_this_model", { value: numbers.decimal(score.this_model, METRIC_DIGITS) }));
  return [
    el("h4", {}, words.say("card_quality")),
    el("p", { class: "figure" }, el("b", {}, numbers.decimal(score.mean, METRIC_DIGITS)), " ", named("metric", score.metric, words)),
    notes.length ? el("p", { class: "note" }, notes.join(" · ")) : null,
  ];
}

function facts(pairs) {
  return el("dl", { class: "pairs" }, pairs.map(([name, ...value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function cost(model, words) {
  const given = model.cost ?? {};
  const names = new Set([...COST_ORDER, ...Object.keys(given)]);
  const rows = [...names].map((name) => [name, given[name]]).filter(([, value]) => isNumber(value));
  if (!rows.length) return [];
  const pairs = rows.map(([name, value]) => [named("cost", name, words), costText(name, value, words)]);
  return [el("h4", {}, words.say("card_cost")), facts(pairs), el("p", { class: "note" }, words.say("card_cost_where"))];
}

function abstention(model, words) {
  const given = model.abstention;
  const title = el("h4", {}, words.say("card_abstention"));
  if (!given || !isNumber(given.threshold)) return [title, el("p", { class: "note" }, words.say("card_no_threshold"))];
  const { drawing, sentence } = curve(given, words);
  const values = {
    threshold: words.numbers.percent(given.threshold, 1),
    target: words.numbers.percent(given.target_risk, 1),
    rows: isNumber(given.validation_rows) ? words.plural("validation_rows", given.validation_rows) : "",
  };
  return [
    title,
    el("p", {}, words.say(given.reachable === false ? "card_unreachable" : "card_threshold", values)),
    drawing,
    el("p", { class: "note" }, sentence),
  ];
}

function identity(model, words) {
  const code = (text) => el("code", {}, text);
  const pairs = [[words.say("card_digest"), code(model.root)]];
  const versions = Object.entries(model.versions ?? {});
  if (versions.length > 1) {
    const whole = versions.reduce((sum, [, weight]) => sum + weight, 0);
    pairs[0] = [
      words.say("card_digest"),
      versions.map(([digest, weight]) => el("span", { class: "version" }, code(digest), ` ${words.numbers.percent(weight / whole)}`)),
    ];
  }
  if (model.parent) pairs.push([words.say("card_base"), code(model.parent)]);
  if (isNumber(model.max_tokens)) pairs.push([words.say("card_max_tokens"), words.plural("tokens", model.max_tokens)]);
  if (model.licences?.length) pairs.push([words.say("card_licences"), model.licences.join("; ")]);
  return el("details", { class: "more" }, el("summary", {}, words.say("card_identity")), facts(pairs));
}

function card(model, words) {
  const state = model.state ?? "ready";
  const from = [model.method, model.study].filter(Boolean);
  return el(
    "article",
    { class: `card adapter ${state}` },
    el(
      "div",
      { class: "line spread" },
      el("h3", {}, model.id),
      el("span", { class: `badge state-${state}` }, named("state", state, words)),
    ),
    from.length
      ? facts([
          [words.say("card_method"), model.method || "—"],
          [words.say("card_study"), model.study || "—"],
        ])
      : null,
    model.reason ? el("p", { class: "note warn" }, `${words.say("card_why")}: ${model.reason}`) : null,
    el("p", { class: "label" }, words.plural("card_classes", model.labels?.length ?? 0)),
    classes(model.labels ?? [], words),
    quality(model, words),
    cost(model, words),
    abstention(model, words),
    identity(model, words),
  );
}

// Bundles of the store that do not serve, each with its reason; nothing where the key may not see them.
function notServing(bundles, words) {
  const away = (bundles ?? []).filter((one) => one.state !== "ready");
  if (!away.length) return null;
  const row = (one) =>
    el(
      "li",
      {},
      el("b", {}, one.id),
      " ",
      el("span", { class: `badge state-${one.state}` }, named("state", one.state, words)),
      el("small", {}, one.reason || words.say("adapters_no_reason")),
    );
  return el("section", { class: "away" }, el("h3", {}, words.say("adapters_not_serving")), el("ul", {}, away.map(row)));
}

export function adaptersView(app) {
  const list = byId("adapters-list");
  let bundles = null;
  let refusedKey; // a key that may not see the store is not tried again

  function redraw() {
    const { words, adapters } = app;
    const away = notServing(bundles, words);
    if (adapters === null) list.replaceChildren(el("p", { class: "quiet" }, words.say("loading")));
    else if (adapters.length === 0) list.replaceChildren(noAdapters(words), away ?? "");
    else list.replaceChildren(...adapters.map((model) => card(model, words)), away ?? "");
  }

  async function show() {
    await app.refresh();
    const key = readKey();
    if (key === refusedKey || app.adapters === null) return;
    try {
      bundles = await registry();
    } catch (error) {
      bundles = null;
      if (error.kind === "auth" || error.kind === "forbidden") refusedKey = key;
    }
    redraw();
  }

  return { redraw, show, hide() {} };
}
