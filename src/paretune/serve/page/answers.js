// One answer as a card: the class, how sure it is against its threshold, and every class with its probability as a bar.

import { bar, el } from "./elements.js";
import { isNumber } from "./numbers.js";

const SHOWN = 6; // classes before the rest is folded away

export function sortedProbabilities(answer) {
  return Object.entries(answer.probabilities ?? {}).sort((one, other) => other[1] - one[1]);
}

function barRow([label, share], first, words) {
  return el(
    "li",
    { class: first ? "first" : "" },
    el("span", { class: "name" }, label),
    bar(share, first ? "strong" : ""),
    el("span", { class: "number" }, words.numbers.percent(share, 1)),
  );
}

function bars(answer, words) {
  const rows = sortedProbabilities(answer);
  const drawn = (part, offset) => part.map((row, index) => barRow(row, offset + index === 0, words));
  const list = el("ul", { class: "bars", "aria-label": words.say("probabilities") }, drawn(rows.slice(0, SHOWN), 0));
  const rest = rows.slice(SHOWN);
  if (rest.length < 2) {
    list.append(...drawn(rest, SHOWN));
    return [list];
  }
  const folded = el(
    "details",
    {},
    el("summary", {}, words.plural("more_classes", rest.length)),
    el("ul", { class: "bars" }, drawn(rest, SHOWN)),
  );
  return [list, folded];
}

function sureness(answer, threshold, words) {
  if (!isNumber(answer.confidence)) return null;
  const text = [words.say("confidence", { value: words.numbers.percent(answer.confidence, 1) })];
  if (isNumber(threshold)) text.push(words.say("threshold", { value: words.numbers.percent(threshold, 1) }));
  return el(
    "div",
    { class: "sureness" },
    el("p", { class: "note", title: words.say("confidence_why") }, text.join(" · ")),
    bar(answer.confidence, answer.abstain ? "open" : "good", isNumber(threshold) ? threshold : null),
  );
}

function verdict(answer, words) {
  if (!answer.abstain) return [el("p", { class: "verdict" }, answer.label)];
  return [
    el("p", { class: "verdict open" }, words.say("abstain")),
    answer.out_of_domain ? el("p", { class: "note warn" }, words.say("out_of_domain")) : null,
    el("p", { class: "closest" }, words.say("closest", { label: answer.label })),
  ];
}

function small(answer, words) {
  const parts = [];
  if (isNumber(answer.tokens)) parts.push(words.plural("tokens", answer.tokens));
  if (answer.digest) {
    const short = el("span", { title: answer.digest }, words.say("digest", { digest: answer.digest.slice(0, 12) }));
    parts.push(short);
  }
  const line = el("p", { class: "note mono" });
  parts.forEach((part, index) => line.append(index ? " · " : "", part));
  return line;
}

export function answerCard(answer, threshold, words) {
  return el(
    "article",
    { class: `card answer-card${answer.abstain ? " open" : ""}` },
    el("h3", {}, answer.adapter),
    verdict(answer, words),
    sureness(answer, threshold, words),
    bars(answer, words),
    answer.truncated ? el("p", { class: "note warn" }, words.say("truncated")) : null,
    small(answer, words),
  );
}

export function failedCard(adapter, why, words) {
  return el(
    "article",
    { class: "card answer-card failed" },
    el("h3", {}, adapter),
    el("p", { class: "verdict bad" }, words.say("failed_answer")),
    el("p", { class: "note" }, why),
  );
}

// The same answer as a phrase to be read out.
export function spoken(answer, words) {
  const adapter = answer.adapter;
  if (answer.out_of_domain) return words.say("said_out_of_domain", { adapter });
  if (answer.abstain) return words.say("said_abstain", { adapter });
  const share = words.numbers.percent(answer.probabilities?.[answer.label] ?? answer.confidence);
  return words.say("said_answer", { adapter, label: answer.label, share });
}
