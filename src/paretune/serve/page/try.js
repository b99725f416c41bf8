// View 1: one text against one adapter, or against all of them side by side.

import { classify, compare } from "./api.js";
import { answerCard, failedCard, spoken } from "./answers.js";
import { announce, byId, el } from "./elements.js";
import { noAdapters, problemNodes } from "./problems.js";

const ALL = ""; // no adapter can have an empty name

// Comments as they come: joy, anger, a sentence that is wrong in grammar, and one that hardly says anything.
const EXAMPLES = {
  ru: [
    "Спасибо вам огромное, вы просто спасли наш отпуск!",
    "Третий раз привозят не то. Сил моих больше нет, верните деньги.",
    "Этот фильм мне показался скучный, потому что я его не досмотрел до конца его.",
    "Ну, допустим.",
  ],
  en: [
    "You remembered my birthday! I can't stop smiling, thank you so much.",
    "Third late delivery this month. I am furious and I want my money back.",
    "The book what I read it yesterday was interesting in.",
    "Well, that happened.",
  ],
};

function examplesFor(language) {
  const order = language === "ru" ? ["ru", "en"] : ["en", "ru"];
  return order.flatMap((lang) => EXAMPLES[lang].map((text) => ({ lang, text })));
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
    const chip = ({ lang, text }) =>
      el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: "chip",
            lang,
            onclick: () => {
              field.value = text;
              ask();
            },
          },
          text,
        ),
      );
    byId("try-examples").replaceChildren(...examplesFor(app.words.language).map(chip));
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

  byId("try-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });

  return {
    redraw() {
      drawExamples();
      drawChoices();
      drawAnswers();
    },
    show() {},
    hide() {},
  };
}
