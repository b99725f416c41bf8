// View 1: one text against one adapter, or against all of them side by side.

import { classify, compare } from "./api.js";
import { answerCard, failedCard, spoken } from "./answers.js";
import { announce, byId, el } from "./elements.js";
import { noAdapters, problemNodes } from "./problems.js";

const ALL = ""; // no adapter can have an empty name

const SHOWN = 4;
const SHORT = 90; // characters of an example that its button shows

// Golden texts of the adapter that is chosen, or of all in turn: the page has no texts of its own, since only a bundle
// knows what it was trained on.
function examplesOf(adapters, chosen) {
  const lists = adapters.filter((one) => chosen === ALL || one.id === chosen).map((one) => one.examples ?? []);
  const longest = Math.max(0, ...lists.map((one) => one.length));
  const inTurn = Array.from({ length: longest }, (_, place) => lists.map((one) => one[place])).flat();
  return [...new Set(inTurn.filter((one) => typeof one === "string" && one.trim() !== ""))].slice(0, SHOWN);
}

function shortened(text) {
  const letters = Array.from(text);
  return letters.length <= SHORT ? text : `${letters.slice(0, SHORT - 1).join("")}…`;
}

export function tryView(app) {
  const field = byId("try-text");
  const select = byId("try-adapter");
  const button = byId("try-go");
  const answers = byId("try-answers");
  const problem = byId("try-problem");
  let asking = null; // AbortController of the question under way
  let shown = null; // what stands below: { results, failed, seconds } or { error }

  const thresholdOf = (answer) => app.adapter(answer.adapter)?.abstention?.threshold ?? null;

  function drawExamples() {
    const chip = (text) =>
      el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: "chip",
            dir: "auto",
            title: text,
            onclick: () => {
              field.value = text;
              ask();
            },
          },
          shortened(text),
        ),
      );
    const texts = examplesOf(app.readyAdapters(), select.value);
    byId("examples-label").parentElement.hidden = texts.length === 0 && app.adapters !== null;
    byId("try-examples").replaceChildren(...texts.map(chip));
  }

  function drawChoices() {
    const chosen = select.value;
    const names = app.readyAdapters().map((one) => one.id);
    const options = names.map((name) => el("option", { value: name }, name));
    if (names.length > 1) options.unshift(el("option", { value: ALL }, app.words.say("try_all")));
    select.replaceChildren(...options);
    if ([ALL, ...names].includes(chosen) && options.some((one) => one.value === chosen)) select.value = chosen;
    const none = names.length === 0;
    byId("try-form").hidden = none && app.adapters !== null; // what to do stands below instead
    select.disabled = none;
    button.disabled = none;
  }

  function drawAnswers() {
    const { words } = app;
    problem.replaceChildren();
    answers.classList.toggle("working", asking !== null);
    if (shown?.error) {
      answers.replaceChildren();
      problem.replaceChildren(...(shown.error === "empty" ? [words.say("try_empty")] : problemNodes(shown.error, words)));
    } else if (shown) {
      answers.replaceChildren(
        ...shown.results.map((one) => (one.error ? failedCard(one.adapter, one.error, words) : answerCard(one, thresholdOf(one), words))),
        ...shown.failed.map((one) => failedCard(one.adapter, one.error, words)),
        el("p", { class: "note took" }, words.say("try_took", { time: words.numbers.duration(shown.seconds) })),
      );
    } else if (app.adapters !== null && app.readyAdapters().length === 0) {
      answers.replaceChildren(noAdapters(words));
    } else {
      answers.replaceChildren(el("p", { class: "waiting-note" }, words.say("try_waiting")));
    }
  }

  function readOut() {
    const { words } = app;
    if (shown.error) return; // the problem is an alert of its own
    const phrases = shown.results.map((one) =>
      one.error ? words.say("said_failed", { adapter: one.adapter }) : spoken(one, words),
    );
    for (const one of shown.failed) phrases.push(words.say("said_failed", { adapter: one.adapter }));
    announce(byId("try-said"), phrases.join("; "));
  }

  async function question(text, adapter, signal) {
    if (adapter === ALL) return compare(text, signal);
    return { results: await classify([text], adapter, signal), failed: [] };
  }

  async function ask() {
    const text = field.value;
    asking?.abort();
    if (text.trim() === "") {
      shown = { error: "empty" };
      drawAnswers();
      field.focus();
      return;
    }
    const mine = new AbortController();
    asking = mine;
    announce(byId("try-said"), app.words.say("try_working"));
    answers.classList.add("working");
    const began = performance.now();
    try {
      const answer = await question(text, select.value, mine.signal);
      shown = { ...answer, seconds: (performance.now() - began) / 1000 };
    } catch (error) {
      if (mine.signal.aborted) return; // a newer question took its place
      shown = { error };
    }
    asking = null;
    drawAnswers();
    readOut();
  }

  select.addEventListener("change", drawExamples);
  byId("try-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });

  return {
    redraw() {
      drawChoices();
      drawExamples();
      drawAnswers();
    },
    show() {},
    hide() {},
  };
}
