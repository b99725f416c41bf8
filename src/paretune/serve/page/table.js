// View 2: a CSV file gets three columns more. This is its state: a file, how it is read (plan), the work on it.
// The drawing is in table_setup.js and table_run.js, reading and writing in csv.js, the requests in job.js.

import * as csv from "./csv.js";
import { announce, byId } from "./elements.js";
import { carryOn, finishedNodes, newWork, outcome, runningNodes, saveLabelled, waitingText, writeProgress } from "./table_run.js";
import { dataRows, setupNodes } from "./table_setup.js";

const LARGEST_BYTES = 50_000_000;

// How a file is read: { plan }, or { problem } with the key of a text. `asked` holds what the reader chose.
export function planOf(bytes, asked = {}) {
  const encoding = asked.encoding ?? csv.guessEncoding(bytes);
  const text = csv.decode(bytes, encoding);
  if (csv.isBinary(text) && !asked.encoding) return { problem: "table_not_text" };
  const delimiter = asked.delimiter ?? csv.guessDelimiter(text);
  const { rows, unclosed } = csv.parse(csv.withoutNamed(text), delimiter);
  if (rows.length === 0) return { problem: "table_empty" };
  const header = csv.guessHeader(rows);
  const column = csv.guessTextColumn(header ? rows.slice(1) : rows);
  return { plan: { encoding, delimiter, rows, unclosed, header, column, adapter: asked.adapter ?? "" } };
}

// The element that had the keyboard has it again after everything was drawn anew.
function keepingFocus(root, draw) {
  const id = root.contains(document.activeElement) ? document.activeElement.id : "";
  draw();
  if (id) document.getElementById(id)?.focus();
}

function wireDrop(drop, input, take) {
  input.addEventListener("change", () => take(input.files[0]));
  for (const kind of ["dragover", "dragenter"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  // A file dropped anywhere must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
}

export function tableView(app) {
  const [drop, input, setup, run] = ["table-drop", "table-file", "table-setup", "table-run"].map(byId);
  let file = null; // { name, bytes }
  let plan = null;
  let work = null;
  let problem = null;

  function drawRun() {
    if (work === null) run.replaceChildren();
    else if (work.state === "running") run.replaceChildren(...runningNodes(work, file, app.words));
    else run.replaceChildren(...finishedNodes(work, file, app.words, { save, goOn, forget }));
    if (work?.state === "running") writeProgress(run, work, app.words);
  }

  function redraw() {
    byId("table-problem").textContent = problem ? app.words.say(problem, { limit: app.words.numbers.size(LARGEST_BYTES) }) : "";
    drop.hidden = plan !== null;
    setup.hidden = plan === null || work !== null;
    run.hidden = work === null;
    keepingFocus(setup, () => setup.replaceChildren(...(setup.hidden ? [] : setupNodes(app, file, plan, { read, set, begin, forget }))));
    keepingFocus(run, drawRun);
  }

  function read(asked) {
    const known = plan ? { encoding: plan.encoding, delimiter: plan.delimiter, adapter: plan.adapter } : {};
    const found = planOf(file.bytes, { ...known, ...asked });
    problem = found.problem ?? null;
    plan = found.plan ?? null;
    redraw();
  }

  function set(changed) {
    Object.assign(plan, changed);
    redraw();
  }

  async function take(chosen) {
    if (!chosen || plan !== null) return;
    problem = null;
    if (chosen.size > LARGEST_BYTES) {
      problem = "table_too_big";
      return redraw();
    }
    try {
      file = { name: chosen.name, bytes: new Uint8Array(await chosen.arrayBuffer()) };
    } catch {
      problem = "table_unreadable";
      return redraw();
    }
    read({});
    if (problem) input.value = ""; // so that the same file, mended, can be chosen again
    else setup.querySelector("#table-column, #table-other")?.focus();
  }

  function begin(adapter) {
    if (!adapter) return;
    work = newWork(dataRows(plan).map((row) => row[plan.column] ?? ""), adapter);
    goOn();
  }

  async function goOn() {
    const mine = work;
    const finished = carryOn(mine, () => {
      writeProgress(run, mine, app.words);
      if (mine.wait) announce(byId("table-said"), waitingText(mine, app.words));
    });
    redraw();
    byId("table-cancel").focus();
    await finished;
    if (work !== mine) return;
    redraw();
    announce(byId("table-said"), outcome(mine, app.words));
    if (!byId("view-table").hidden) byId("table-save").focus();
  }

  function save() {
    saveLabelled(work, file, plan, dataRows(plan), app.words);
  }

  function forget() {
    file = plan = work = problem = null;
    input.value = "";
    redraw();
    input.focus();
  }

  wireDrop(drop, input, take);
  return { redraw, show() {}, hide() {} };
}
