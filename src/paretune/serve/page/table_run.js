// View 2 during the work and after it: progress, what came out, the file to save.

import { classify } from "./api.js";
import { write } from "./csv.js";
import { bar, el, saveFile } from "./elements.js";
import { run } from "./job.js";
import { columnNames, counts, labelled } from "./labelled.js";
import { problemText } from "./problems.js";

// state: "running" | "done" | "cancelled" | "stopped"; results[i] is null until row i has an answer.
export function newWork(texts, adapter) {
  return { texts, adapter, results: texts.map(() => null), state: "running", error: null, control: null, wait: null };
}

export function doneCount(work) {
  return work.results.filter((result) => result !== null).length;
}

function warn(event) {
  event.preventDefault(); // the browser asks whether to leave
}

// Works until all is done, cancelled or stopped; `onProgress` is called at every step.
export async function carryOn(work, onProgress) {
  const control = new AbortController();
  Object.assign(work, { state: "running", error: null, control, wait: null, began: performance.now(), doneBefore: doneCount(work) });
  addEventListener("beforeunload", warn);
  try {
    await run({
      texts: work.texts,
      results: work.results,
      classify: (texts, signal) => classify(texts, work.adapter, signal),
      signal: control.signal,
      onProgress: () => {
        work.wait = null;
        onProgress();
      },
      onWait: (kind, seconds) => {
        work.wait = { kind, seconds };
        onProgress();
      },
    });
    work.state = "done";
  } catch (error) {
    work.state = control.signal.aborted ? "cancelled" : "stopped";
    work.error = error;
  } finally {
    removeEventListener("beforeunload", warn);
  }
}

// ---- during the work

export function waitingText(work, words) {
  const { say, numbers } = words;
  if (work.wait) {
    const key = work.wait.kind === "down" ? "progress_down" : "progress_waiting";
    return say(key, { time: numbers.duration(Math.max(1, Math.round(work.wait.seconds))) });
  }
  const done = doneCount(work);
  const fresh = done - work.doneBefore;
  const seconds = (performance.now() - work.began) / 1000;
  if (fresh === 0 || seconds < 2) return "";
  return say("progress_left", { time: numbers.duration(Math.ceil(((work.texts.length - done) / fresh) * seconds)) });
}

export function runningNodes(work, file, words) {
  return [
    el("p", { class: "file" }, el("b", {}, file.name), ` · ${work.adapter}`),
    el("progress", { "aria-label": words.say("progress_label"), max: 1, value: 0 }),
    el("p", { class: "line spread" }, el("span", { class: "counted" }), el("span", { class: "left note" })),
    el("button", { type: "button", id: "table-cancel", onclick: () => work.control.abort() }, words.say("table_cancel")),
  ];
}

export function writeProgress(root, work, words) {
  const progress = root.querySelector("progress");
  if (!progress) return;
  const { count } = words.numbers;
  const done = doneCount(work);
  progress.max = work.texts.length;
  progress.value = done;
  root.querySelector(".counted").textContent = words.say("progress", { done: count(done), total: count(work.texts.length) });
  root.querySelector(".left").textContent = waitingText(work, words);
}

// ---- after it

export function outcome(work, words) {
  const { numbers, plural, say } = words;
  if (work.state === "done") return plural("job_done", work.texts.length);
  const values = { done: numbers.count(doneCount(work)), total: numbers.count(work.texts.length) };
  if (work.state === "cancelled") return say("job_cancelled", values);
  return say("job_stopped", { ...values, why: problemText(work.error, words) });
}

export function saveLabelled(work, file, plan, rows, words) {
  const header = plan.header ? plan.rows[0] : null;
  const notes = { empty: words.say("note_empty"), missing: words.say("note_not_done"), unlike: words.say("note_unlike") };
  const table = labelled(rows, header, work.results, columnNames(header ?? []), notes);
  const blob = new Blob([write(table, plan.delimiter)], { type: "text/csv;charset=utf-8" });
  saveFile(`${file.name.replace(/\.[^.]*$/, "")}.labelled.csv`, blob);
}

function summary(work, words) {
  const { numbers, plural, say } = words;
  const { labels, abstained, failed } = counts(work.results);
  const most = Math.max(abstained, ...labels.map(([, count]) => count), 1);
  const row = (name, count, kind) =>
    el("li", {}, el("span", { class: "name" }, name), bar(count / most, kind), el("span", { class: "number" }, numbers.count(count)));
  const list = el("ul", { class: "bars", "aria-label": say("job_labels") }, labels.map(([name, count]) => row(name, count, "strong")));
  if (abstained) list.append(row(say("abstain"), abstained, "open"));
  return [
    el("h3", {}, say("job_counts")),
    list.children.length ? list : null,
    abstained ? el("p", {}, plural("job_abstain", abstained) + ".") : null,
    failed ? el("p", { class: "note warn" }, plural("job_failed", failed) + ".") : null,
  ];
}

// actions: save(), goOn(), forget()
export function finishedNodes(work, file, words, actions) {
  const { say } = words;
  const whole = work.state === "done";
  const button = (key, onclick, id, kind = "") => el("button", { type: "button", class: kind, id, onclick }, say(key));
  return [
    el("p", { class: "file" }, el("b", {}, file.name), ` · ${work.adapter}`),
    el("p", { class: whole ? "outcome" : "outcome problem" }, outcome(work, words)),
    el(
      "div",
      { class: "line" },
      button(whole ? "table_download" : "table_download_part", actions.save, "table-save", "primary"),
      whole ? null : button("table_continue", actions.goOn, "table-continue"),
      button("table_other", actions.forget, "table-other"),
    ),
    ...(doneCount(work) ? summary(work, words) : []),
    el("p", { class: "note" }, say("job_safe")),
  ].filter(Boolean);
}
