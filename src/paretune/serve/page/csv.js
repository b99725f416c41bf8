// Tables as text: which encoding and delimiter a file has, reading it (RFC 4180, tolerant), and writing it safely.
// Nothing here touches the page or the network.

export const ENCODINGS = ["utf-8", "windows-1251", "utf-16le", "utf-16be", "koi8-r", "ibm866", "windows-1252"];
export const DELIMITERS = [",", ";", "\t", "|"];
const SAMPLE = 65_536; // characters that the delimiter is guessed from
const COMMON = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё";

// ---- encoding

function byMark(bytes) {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) return "utf-8";
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  return null;
}

function zeroShare(bytes, offset) {
  let zeros = 0;
  const length = Math.min(bytes.length, 4096);
  for (let i = offset; i < length; i += 2) zeros += bytes[i] === 0 ? 1 : 0;
  return length > 1 ? zeros / Math.ceil((length - offset) / 2) : 0;
}

function isUtf8(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

// A Western text has single letters above 127 among plain ones; a Russian one has them side by side.
function looksWestern(bytes) {
  let high = 0;
  let alone = 0;
  for (let i = 0; i < bytes.length; i += 1) {
    if (bytes[i] < 128) continue;
    high += 1;
    alone += (bytes[i - 1] ?? 0) < 128 && (bytes[i + 1] ?? 0) < 128 ? 1 : 0;
  }
  return high > 0 && alone / high > 0.6;
}

// Small Russian letters count for their frequency; a wrong table makes them capitals, signs or rare letters.
function russianScore(text) {
  let score = 0;
  for (const letter of text) {
    const rank = COMMON.indexOf(letter);
    if (rank >= 0) score += rank < 12 ? 3 : rank < 22 ? 2 : 1;
    else if (letter >= "А" && letter <= "Я") score += 0.5;
    else if (letter > "\u007f") score -= 1;
  }
  return score;
}

export function guessEncoding(bytes) {
  const marked = byMark(bytes);
  if (marked) return marked;
  if (zeroShare(bytes, 1) > 0.2) return "utf-16le";
  if (zeroShare(bytes, 0) > 0.2) return "utf-16be";
  if (isUtf8(bytes)) return "utf-8";
  const sample = bytes.subarray(0, SAMPLE);
  if (looksWestern(sample)) return "windows-1252";
  const scored = ["windows-1251", "koi8-r", "ibm866"].map((name) => [russianScore(new TextDecoder(name).decode(sample)), name]);
  return scored.reduce((best, one) => (one[0] > best[0] ? one : best))[1];
}

// The mark of the byte order is not part of the text.
export function decode(bytes, encoding) {
  return new TextDecoder(encoding).decode(bytes);
}

// Control characters stand in no table of texts, but in every workbook, archive and picture.
export function isBinary(text) {
  const sample = text.slice(0, 4096);
  let strange = 0;
  for (const letter of sample) {
    if (letter < " " && letter !== "\n" && letter !== "\r" && letter !== "\t" && letter !== "\f") strange += 1;
  }
  return strange > sample.length / 200;
}

// ---- reading

// Rows of cells. A quote matters at the beginning of a cell alone; blank lines are passed over.
// `unclosed`: the number (from 1) of the row in which a quote is never closed, or null.
export function parse(text, delimiter, limit = Infinity) {
  const rows = [];
  let row = [];
  let at = 0;
  let unclosed = null;
  const endRow = () => {
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  };
  while (at < text.length && rows.length < limit) {
    let cell = "";
    if (text[at] === '"') {
      at += 1;
      for (;;) {
        const close = text.indexOf('"', at);
        if (close < 0) {
          unclosed ??= rows.length + 1;
          cell += text.slice(at);
          at = text.length;
          break;
        }
        cell += text.slice(at, close);
        at = close + 1;
        if (text[at] !== '"') break;
        cell += '"';
        at += 1;
      }
    }
    const from = at;
    while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at += 1;
    row.push(cell + text.slice(from, at));
    if (text[at] === delimiter) {
      at += 1;
      if (at === text.length) row.push("");
      else continue;
    }
    if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
    at += 1;
    endRow();
  }
  return { rows, unclosed };
}

// Excel's first line "sep=;" names the delimiter and is no row.
function named(text) {
  const found = /^sep=(.)\r?\n/i.exec(text);
  return found ? { delimiter: found[1], rest: text.slice(found[0].length) } : null;
}

export function withoutNamed(text) {
  return named(text)?.rest ?? text;
}

export function guessDelimiter(text) {
  const said = named(text);
  if (said) return said.delimiter;
  const sample = text.slice(0, SAMPLE);
  let best = { score: 0, delimiter: "," };
  for (const delimiter of DELIMITERS) {
    const { rows } = parse(sample, delimiter, 50);
    const whole = sample.length < text.length && rows.length > 1 ? rows.slice(0, -1) : rows; // the last may be cut
    const widths = whole.map((row) => row.length);
    if (!widths.length || widths[0] < 2) continue;
    const same = widths.filter((width) => width === widths[0]).length / widths.length;
    const score = same + Math.min(widths[0], 20) / 1000;
    if (score > best.score) best = { score, delimiter };
  }
  return best.delimiter;
}

// The column whose cells are longest: comments are longer than dates and names.
export function guessTextColumn(rows) {
  const widths = [];
  for (const row of rows.slice(0, 200)) {
    row.forEach((cell, index) => {
      widths[index] = (widths[index] ?? 0) + (/^[\d\s.,:/-]*$/.test(cell) ? 0 : Math.min(cell.length, 500));
    });
  }
  return widths.reduce((best, width, index) => (width > widths[best] ? index : best), 0);
}

// A first row with a number or a whole sentence in it is data.
export function guessHeader(rows) {
  const first = rows[0] ?? [];
  return rows.length > 1 && first.every((cell) => cell.length <= 60 && !/^[+-]?\d+([.,]\d+)?$/.test(cell.trim()));
}

// ---- writing

// Spreadsheets run a cell that begins so (OWASP, "CSV injection"); a plain number is harmless and stays one.
const FORMULA = /^[=+\-@\t\r\n＝＋－＠]/u;
const NUMBER = /^[+-]?\d[\d\s.,]*%?$/u;

export function neutral(cell) {
  return FORMULA.test(cell.trimStart() || cell) && !NUMBER.test(cell) ? `'${cell}` : cell;
}

// Any delimiter is quoted, not this file's alone: a program that guesses another one must not find new cells.
function written(cell) {
  const safe = neutral(cell);
  return /[",;\t|\r\n]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// With the byte order mark, without which Excel reads Russian letters wrongly.
export function write(rows, delimiter) {
  return "\ufeff" + rows.map((row) => row.map(written).join(delimiter) + "\r\n").join("");
}

// A name that the table does not have yet: label, label_2, …
export function freeName(name, taken) {
  let free = name;
  for (let n = 2; taken.includes(free); n += 1) free = `${name}_${n}`;
  return free;
}
