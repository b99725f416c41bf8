// View 2 before the work: what the file was read as, its first rows, which column and which adapter.

import { DELIMITERS, ENCODINGS } from "./csv.js";
import { el } from "./elements.js";
import { noAdapters } from "./problems.js";

const PREVIEW_ROWS = 5;
const PREVIEW_CHARACTERS = 160;
const DELIMITER_WORDS = { ",": "delimiter_comma", ";": "delimiter_semicolon", "\t": "delimiter_tab", "|": "delimiter_pipe" };

export function dataRows(plan) {
  return plan.header ? plan.rows.slice(1) : plan.rows;
}

function columnName(plan, index, words) {
  const name = plan.header ? plan.rows[0][index]?.trim() : "";
  return name || words.say("table_column_n", { n: index + 1 });
}

function select(id, label, options, chosen, onchange) {
  const node = el("select", { id, onchange: () => onchange(node.value) }, options.map(([value, text]) => el("option", { value }, text)));
  node.value = chosen;
  return el("div", { class: "field" }, el("label", { for: id }, label), node);
}

function previewTable(plan, words) {
  const cut = (cell) => (cell.length > PREVIEW_CHARACTERS ? `${cell.slice(0, PREVIEW_CHARACTERS)}…` : cell);
  const indices = plan.rows[0].map((_, index) => index);
  const kind = (index) => (index === plan.column ? "chosen" : "");
  const head = indices.map((index) => el("th", { scope: "col", class: kind(index) }, columnName(plan, index, words)));
  const body = dataRows(plan)
    .slice(0, PREVIEW_ROWS)
    .map((row) => el("tr", {}, indices.map((index) => el("td", { class: kind(index), dir: "auto" }, cut(row[index] ?? "")))));
  const table = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": words.say("table_preview") }, table);
}

function warnings(plan, words) {
  const found = [];
  if (plan.unclosed !== null) found.push(words.say("table_unclosed", { row: words.numbers.count(plan.unclosed) }));
  const ragged = plan.rows.filter((row) => row.length !== plan.rows[0].length).length;
  if (ragged) found.push(words.plural("table_ragged", ragged));
  return found.map((text) => el("p", { class: "note warn" }, text));
}

function fileControls(plan, words, actions) {
  const known = DELIMITERS.includes(plan.delimiter) ? DELIMITERS : [plan.delimiter, ...DELIMITERS];
  const delimiters = known.map((one) => [one, one in DELIMITER_WORDS ? words.say(DELIMITER_WORDS[one]) : one]);
  const encodings = ENCODINGS.map((name) => [name, name.toUpperCase()]);
  const header = el("input", { type: "checkbox", id: "table-header", onchange: () => actions.set({ header: header.checked }) });
  header.checked = plan.header;
  return el(
    "div",
    { class: "fields" },
    select("table-encoding", words.say("table_encoding"), encodings, plan.encoding, (encoding) => actions.read({ encoding })),
    select("table-delimiter", words.say("table_delimiter"), delimiters, plan.delimiter, (delimiter) => actions.read({ delimiter })),
    el("label", { class: "check", for: "table-header" }, header, el("span", {}, words.say("table_header"))),
  );
}

function workControls(plan, names, words, actions) {
  const columns = plan.rows[0].map((_, index) => [String(index), columnName(plan, index, words)]);
  const adapters = names.map((name) => [name, name]);
  const chosen = names.includes(plan.adapter) ? plan.adapter : (names[0] ?? "");
  return el(
    "div",
    { class: "fields" },
    select("table-column", words.say("table_column"), columns, String(plan.column), (column) => actions.set({ column: Number(column) })),
    select("table-adapter", words.say("table_adapter"), adapters, chosen, (adapter) => actions.set({ adapter })),
    el("button", { type: "button", class: "primary", id: "table-start", onclick: () => actions.begin(chosen) }, words.say("table_start")),
    otherFile(words, actions),
  );
}

function otherFile(words, actions) {
  return el("button", { type: "button", id: "table-other", onclick: actions.forget }, words.say("table_other"));
}

// actions: read({ encoding | delimiter }), set({ header | column | adapter }), begin(adapter), forget()
export function setupNodes(app, file, plan, actions) {
  const { words } = app;
  const names = app.readyAdapters().map((one) => one.id);
  const facts = [words.plural("table_rows", dataRows(plan).length), words.plural("table_columns", plan.rows[0].length)];
  return [
    el("p", { class: "file" }, el("b", {}, file.name), ` · ${facts.join(" · ")}`),
    fileControls(plan, words, actions),
    ...warnings(plan, words),
    el("h3", {}, words.say("table_preview")),
    previewTable(plan, words),
    ...(names.length || app.adapters === null
      ? [workControls(plan, names, words, actions)]
      : [noAdapters(words), otherFile(words, actions)]),
  ];
}
