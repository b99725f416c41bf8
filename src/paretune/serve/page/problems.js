// What went wrong, in words that say what to do; and the pieces that views share when there is nothing to show.

import { el } from "./elements.js";
import { ServiceError } from "./api.js";

export function problemText(error, words) {
  const { say, numbers } = words;
  if (!(error instanceof ServiceError)) return say("error_strange");
  if (error.kind === "overloaded") {
    const after = error.retryAfterSeconds;
    return after ? say("error_overloaded", { after: numbers.duration(Math.ceil(after)) }) : say("error_overloaded_soon");
  }
  if (error.kind === "validation") {
    return error.detail ? say("error_validation", { detail: error.detail }) : say("error_validation_bare");
  }
  return say(`error_${error.kind}`);
}

// The problem with the number of its request, which the service's log knows too.
export function problemNodes(error, words) {
  const id = error instanceof ServiceError && error.requestId;
  return [problemText(error, words), id ? el("small", {}, words.say("request_id", { id })) : null].filter(Boolean);
}

export function noAdapters(words) {
  return el(
    "div",
    { class: "box nothing" },
    el("p", {}, el("b", {}, words.say("no_adapters"))),
    el("p", { class: "note" }, words.say("no_adapters_do")),
    el("pre", { tabindex: "0" }, "paretune export runs/demo --to bundle --best --out bundle\nparetune serve bundle"),
  );
}
