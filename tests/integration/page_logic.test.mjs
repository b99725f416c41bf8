// Unit tests of the page's logic, run by node's own test runner from test_page.py. Nothing here needs a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(`${process.env.PAGE_FOLDER}/`);
const load = (name) => import(new URL(name, folder));
const csv = await load("csv.js");
const job = await load("job.js");
const { labelled, columnNames, counts } = await load("labelled.js");
const { ServiceError, retrySeconds } = await load("api.js");
const { wordsOf, LANGUAGES } = await load("words.js");
const { curvePoints, riskLimit } = await load("curve.js");
const { rates } = await load("health.js");
const { costText } = await load("adapters.js");

const utf8 = (text) => new TextEncoder().encode(text);

// The single-byte tables that TextDecoder knows, turned round.
function encoded(text, encoding) {
  const table = new Map();
  for (let byte = 0; byte < 256; byte += 1) table.set(new TextDecoder(encoding).decode(Uint8Array.of(byte)), byte);
  return Uint8Array.from(text, (letter) => table.get(letter));
}

const RUSSIAN = "id;Комментарий\r\n1;Спасибо, всё очень понравилось!\r\n2;ПЛОХО. Третий раз привозят не то.\r\n";

for (const encoding of ["windows-1251", "koi8-r", "ibm866"]) {
  test(`a Russian table in ${encoding} is recognised and read whole`, () => {
    const bytes = encoded(RUSSIAN, encoding);
    assert.equal(csv.guessEncoding(bytes), encoding);
    assert.equal(csv.decode(bytes, encoding), RUSSIAN);
  });
}

test("a Western table is not taken for a Russian one", () => {
  const bytes = encoded("id,text\n1,Très bien élevé déjà vu\n2,Schöne Grüße\n", "windows-1252");
  assert.equal(csv.guessEncoding(bytes), "windows-1252");
});

test("byte order marks and UTF-16 without one are recognised; the mark is not part of the first name", () => {
  const marked = Uint8Array.of(0xef, 0xbb, 0xbf, ...utf8("текст\n"));
  assert.equal(csv.guessEncoding(marked), "utf-8");
  assert.equal(csv.decode(marked, "utf-8"), "текст\n");
  const wide = Uint8Array.from("id,text\n1,one more\n", (letter) => letter.charCodeAt(0));
  const little = new Uint8Array(wide.length * 2);
  wide.forEach((byte, index) => little.set([byte, 0], index * 2));
  assert.equal(csv.guessEncoding(little), "utf-16le");
  assert.equal(csv.guessEncoding(Uint8Array.of(0xff, 0xfe, ...little)), "utf-16le");
});

test("a workbook is not a table of texts", () => {
  assert.ok(csv.isBinary("PK\u0003\u0004\u0014\u0000\u0006\u0000" + "\u0000\u0001".repeat(40)));
  assert.ok(!csv.isBinary(RUSSIAN));
});

test("quoted cells hold delimiters, quotes and line breaks; blank lines are no rows", () => {
  const text = 'id,text\r\n1,"a ""quoted"" word,\r\nand a line"\r\n\r\n2,plain "inside" cell\r\n3,\r\n';
  assert.deepEqual(csv.parse(text, ","), {
    rows: [["id", "text"], ["1", 'a "quoted" word,\r\nand a line'], ["2", 'plain "inside" cell'], ["3", ""]],
    unclosed: null,
  });
});

test("a quote that is never closed is said with its row, and nothing is lost", () => {
  const { rows, unclosed } = csv.parse('a,b\n1,"open\n2,x\n', ",");
  assert.equal(unclosed, 2);
  assert.deepEqual(rows.at(-1), ["1", "open\n2,x\n"]);
});

test("line ends of all three kinds and a missing last one are understood", () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    assert.deepEqual(csv.parse(`a,b${end}1,2${end}3,`, ",").rows, [["a", "b"], ["1", "2"], ["3", ""]]);
  }
});

test("the delimiter is the one that gives rows of one width, or what the first line says", () => {
  assert.equal(csv.guessDelimiter(RUSSIAN), ";");
  assert.equal(csv.guessDelimiter("a\tb\n1, 2, 3\tx\n4\ty\n"), "\t");
  assert.equal(csv.guessDelimiter("a|b\n1|x, y\n"), "|");
  assert.equal(csv.guessDelimiter("one column, with a comma\nand none here\n"), ",");
  assert.equal(csv.guessDelimiter("sep=|\na,b|c\n"), "|");
  assert.equal(csv.withoutNamed("sep=|\na,b|c\n"), "a,b|c\n");
});

test("the column of comments is the one with long words, not dates or numbers", () => {
  const rows = [["2026-11-24 10:00:00", "Борис", "Очень понравилось, спасибо"], ["2026-11-25 11:00:00", "Анна", "Так себе"]];
  assert.equal(csv.guessTextColumn(rows), 2);
  assert.equal(csv.guessHeader([["date", "name", "comment"], ...rows]), true);
  assert.equal(csv.guessHeader([["1", "first"], ["2", "second"]]), false);
});

test("cells that a spreadsheet would run are made harmless; numbers and words stay as they are", () => {
  for (const cell of ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "  =1+1", "\t=1", "＝1+1", "\r=1"]) {
    assert.equal(csv.neutral(cell), `'${cell}`);
  }
  for (const cell of ["-5", "+3,5", "-1 000.5", "12 %", "plain", "a=b", "", " "]) assert.equal(csv.neutral(cell), cell);
});

test("what is written is read back the same", () => {
  const rows = [["a", "b"], ['x "y"', "line\nbreak"], ["semi;colon", ""], [" space ", "tab\tinside"]];
  const text = csv.write(rows, ",");
  assert.equal(text[0], "\ufeff");
  assert.deepEqual(csv.parse(text.slice(1), ",").rows, rows);
});

test("a delimiter of another program cannot make a new cell that runs", () => {
  assert.ok(csv.write([["hello;=1+1"]], ",").includes('"hello;=1+1"'));
});

// ---- the labelled table

const answer = (label, abstain = false) => ({ label, confidence: 0.91234, abstain });
const NOTES = { empty: "empty text", missing: "not labelled", unlike: "unlike the training texts" };

test("three columns are added, aligned even where rows are of different width, under names that are free", () => {
  const header = ["text", "label"];
  const table = labelled([["one", "x"], ["two"], ["three", "y", "z"]], header, [answer("joy"), answer("fear", true), answer("joy")], columnNames(header), NOTES);
  assert.deepEqual(table, [
    ["text", "label", "", "label_2", "confidence", "abstain"],
    ["one", "x", "", "joy", "0.9123", "false"],
    ["two", "", "", "fear", "0.9123", "true"],
    ["three", "y", "z", "joy", "0.9123", "false"],
  ]);
});

test("rows without an answer are a person's, and a column of notes says why", () => {
  const table = labelled([["one"], [""], ["three"], ["four"]], null, [answer("joy"), { empty: true }, { error: "too long" }, null], columnNames([]), NOTES);
  assert.deepEqual(table, [
    ["one", "joy", "0.9123", "false", ""],
    ["", "", "", "true", "empty text"],
    ["three", "", "", "true", "too long"],
    ["four", "", "", "true", "not labelled"],
  ]);
  const strange = labelled([["one"]], null, [{ ...answer("joy", true), out_of_domain: true }], columnNames([]), NOTES);
  assert.deepEqual(strange, [["one", "joy", "0.9123", "true", "unlike the training texts"]]);
  assert.deepEqual(counts([answer("a"), answer("b"), answer("b"), answer("a", true), { empty: true }, null]), {
    labels: [["b", 2], ["a", 1]],
    abstained: 1,
    failed: 1,
  });
});

// ---- the job

function work(texts, classify, more = {}) {
  const results = texts.map(() => null);
  const control = new AbortController();
  const waits = [];
  const promise = job.run({ texts, results, classify, signal: control.signal, onProgress() {}, onWait: (kind, seconds) => waits.push([kind, seconds]), ...more });
  return { promise, results, control, waits };
}

const same = async (texts) => texts.map((text) => answer(text));

test("texts go in batches of 32 at most, in order; empty ones are not sent", async () => {
  const texts = Array.from({ length: 70 }, (_, index) => (index === 5 ? "  " : `t${index}`));
  const sizes = [];
  const { promise, results } = work(texts, async (batch) => {
    sizes.push(batch.length);
    return same(batch);
  });
  await promise;
  assert.deepEqual(sizes, [32, 32, 5]);
  assert.ok(results[5].empty);
  assert.ok(results.every((result, index) => index === 5 || result.label === texts[index]));
});

test("a batch is bounded in bytes too, and a huge text goes alone", () => {
  const texts = ["а".repeat(150_000), "а".repeat(100_000), "b", "c".repeat(900_000)];
  assert.deepEqual(job.nextBatch([0, 1, 2, 3], texts, 0), [0]);
  assert.deepEqual(job.nextBatch([0, 1, 2, 3], texts, 1), [1, 2]);
  assert.deepEqual(job.nextBatch([0, 1, 2, 3], texts, 3), [3]);
});

test("a refusal for load is waited out, never shorter than asked, and the wait grows", async () => {
  let refusals = 2;
  const { promise, results, waits } = work(["one"], async (batch) => {
    if (refusals-- > 0) throw new ServiceError("overloaded", "", 0.01);
    return same(batch);
  });
  await promise;
  assert.equal(results[0].label, "one");
  assert.deepEqual(waits.map(([kind]) => kind), ["overloaded", "overloaded"]);
  assert.equal(job.waitSeconds(0, 7, 0.5), 7);
  assert.equal(job.waitSeconds(3, null, 1), 4);
  assert.equal(job.waitSeconds(3, null, 0), 2);
  assert.equal(job.waitSeconds(30, null, 1), 60);
});

test("one text that is refused fails alone", async () => {
  const texts = Array.from({ length: 33 }, (_, index) => `t${index}`);
  const { promise, results } = work(texts, async (batch) => {
    if (batch.includes("t7")) throw new ServiceError("validation", "inputs.7: too long");
    return same(batch);
  });
  await promise;
  assert.deepEqual(results[7], { error: "inputs.7: too long" });
  assert.equal(results.filter((result) => result.label).length, 32);
});

test("a service that fails at everything stops the job, which can go on later with nothing lost", async () => {
  const texts = Array.from({ length: 100 }, (_, index) => `t${index}`);
  let broken = false;
  let calls = 0;
  const classify = async (batch) => {
    calls += 1;
    if (broken) throw new ServiceError("backend", "inner");
    return same(batch);
  };
  const results = texts.map(() => null);
  const control = new AbortController();
  const again = () => job.run({ texts, results, classify, signal: control.signal, onProgress: () => (broken ||= calls === 1), onWait() {} });
  await assert.rejects(again(), (error) => error.kind === "backend");
  assert.ok(calls < 120);
  assert.equal(results.filter((result) => result !== null).length, 32);
  calls = 5;
  broken = false;
  await again();
  assert.ok(results.every((result, index) => result.label === texts[index]));
});

test("a wrong key stops the job at once", async () => {
  let calls = 0;
  const { promise } = work(["one", "two"], async () => {
    calls += 1;
    throw new ServiceError("auth");
  });
  await assert.rejects(promise, (error) => error.kind === "auth");
  assert.equal(calls, 1);
});

test("cancelling ends a wait at once and keeps what there is", async () => {
  const texts = Array.from({ length: 40 }, (_, index) => `t${index}`);
  let calls = 0;
  const started = work(texts, async (batch) => {
    calls += 1;
    if (calls === 2) throw new ServiceError("overloaded", "", 3600);
    return same(batch);
  }, { onWait: () => setTimeout(() => started.control.abort()) });
  await assert.rejects(started.promise, (error) => error.name === "AbortError");
  assert.equal(started.results.filter(Boolean).length, 32);
});

// ---- numbers and words

test("Retry-After is read as seconds, as a date, or as nothing", () => {
  assert.equal(retrySeconds("3"), 3);
  assert.equal(retrySeconds(null), null);
  assert.equal(retrySeconds("soon"), null);
  assert.equal(retrySeconds("Thu, 01 Jan 1970 00:00:10 GMT", 4000), 6);
});

test("plural forms, percents, sizes and durations follow the language", () => {
  const ru = wordsOf("ru");
  const en = wordsOf("en");
  assert.deepEqual([1, 3, 5, 11, 21].map((n) => ru.plural("table_rows", n)), ["1 строка", "3 строки", "5 строк", "11 строк", "21 строка"]);
  assert.deepEqual([1, 5].map((n) => en.plural("table_rows", n)), ["1 row", "5 rows"]);
  assert.equal(ru.numbers.percent(0.934, 1), "93,4\u00a0%");
  assert.equal(en.numbers.percent(0.934, 1), "93.4%");
  assert.equal(en.numbers.size(1_350_000), "1.29\u00a0MiB");
  assert.match(ru.numbers.size(1_350_000), /^1,29\sМиБ$/);
  assert.match(en.numbers.duration(0.0123), /^12\.3\sms$/);
  assert.match(ru.numbers.duration(200), /^3\sмин 20\sс$/);
  assert.equal(en.numbers.decimal(-0.5, 1), "\u22120.5");
  assert.equal(en.numbers.size(null), "—");
});

const placesOf = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]).sort();

test("every text stands in both languages, with the same places for values and all plural forms", () => {
  assert.deepEqual(Object.keys(LANGUAGES.ru).sort(), Object.keys(LANGUAGES.en).sort());
  for (const [key, english] of Object.entries(LANGUAGES.en)) {
    const russian = LANGUAGES.ru[key];
    assert.equal(typeof russian, typeof english, key);
    if (typeof english === "string") {
      assert.ok(english.trim() && russian.trim(), key);
      assert.deepEqual(placesOf(russian), placesOf(english), key);
      continue;
    }
    for (const [language, forms] of [["en", english], ["ru", russian]]) {
      const needed = new Intl.PluralRules(language).resolvedOptions().pluralCategories.toSorted();
      assert.deepEqual(Object.keys(forms).sort(), needed, key);
      for (const form of Object.values(forms)) assert.deepEqual(placesOf(form), placesOf(english.other), key);
    }
  }
});

test("Russian texts are Russian", () => {
  const same = new Set(["footer_docs", "said_answer"]);
  for (const [key, text] of Object.entries(LANGUAGES.ru)) {
    const all = typeof text === "string" ? text : Object.values(text).join(" ");
    assert.ok(same.has(key) || /[а-яё]/i.test(all.replaceAll(/\{\w+\}/g, "")), key);
  }
});

test("the curve has only points that answer something, and an axis that holds them and the aim", () => {
  const given = { target_risk: 0.05, curve: [{ coverage: 1, risk: 0.18 }, { coverage: 0, risk: 0 }, { coverage: 0.4, risk: 0.02 }] };
  const points = curvePoints(given);
  assert.deepEqual(points.map((point) => point.coverage), [0.4, 1]);
  assert.equal(riskLimit(points, given), 0.2);
  assert.equal(riskLimit([], { target_risk: 0.3 }), 0.5);
  assert.deepEqual(curvePoints(undefined), []);
});

test("texts a second come from the counter; a restart is no negative speed", () => {
  const history = [{ at: 0, rows: 0 }, { at: 2000, rows: 10 }, { at: 4000, rows: 4 }];
  assert.deepEqual(rates(history), [5, 0]);
});

test("a cost is written by the unit in its name", () => {
  const words = wordsOf("en");
  assert.equal(costText("adapter_bytes", 2_000_000, words), "1.91\u00a0MiB");
  assert.equal(costText("trainable_parameters", 234_000, words), "234,000");
  assert.match(costText("latency_1_seconds", 0.0406, words), /^40\.6\sms$/);
});
