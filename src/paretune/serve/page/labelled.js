// The table with its answers: which columns it gets, what stands in them, and how many rows of each label there are.

import { freeName } from "./csv.js";

export function columnNames(header) {
  return ["label", "confidence", "abstain", "note"].map((name) => freeName(name, header));
}

// A row without an answer is a person's too: abstain is true there, and the note says why.
function cells(result, notes) {
  if (result === null) return ["", "", "true", notes.missing];
  if (result.empty) return ["", "", "true", notes.empty];
  if (result.error) return ["", "", "true", result.error];
  const note = result.out_of_domain ? notes.unlike : "";
  return [result.label, result.confidence.toFixed(4), String(result.abstain), note];
}

// `header`: the names of the columns, or null where the file has none (the result has none then either).
// The column of notes is left out where nothing needs one.
export function labelled(rows, header, results, names, notes) {
  const width = rows.reduce((most, row) => Math.max(most, row.length), header?.length ?? 0);
  const answers = results.map((result) => cells(result, notes));
  const noted = answers.some((one) => one[3] !== "");
  const kept = noted ? 4 : 3;
  const padded = (row) => [...row, ...Array(Math.max(0, width - row.length)).fill("")];
  const body = rows.map((row, index) => [...padded(row), ...answers[index].slice(0, kept)]);
  return header ? [[...padded(header), ...names.slice(0, kept)], ...body] : body;
}

export function counts(results) {
  const labels = new Map();
  let abstained = 0;
  let failed = 0;
  for (const result of results) {
    if (result === null) continue;
    if (result.empty || result.error) failed += 1;
    else if (result.abstain) abstained += 1;
    else labels.set(result.label, (labels.get(result.label) ?? 0) + 1);
  }
  return { labels: [...labels].sort((one, other) => other[1] - one[1]), abstained, failed };
}
