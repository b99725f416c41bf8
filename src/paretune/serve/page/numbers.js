// Numbers for readers, in the page's language: sizes, durations, shares, intervals. Nothing here touches the page.

export const NONE = "—";

const BINARY = { en: ["KiB", "MiB", "GiB"], ru: ["КиБ", "МиБ", "ГиБ"] };
const MINUS = "\u2212";
const formats = new Map();

function format(language, options) {
  const key = language + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, options));
  return formats.get(key);
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function numbersOf(language) {
  const write = (value, options) => format(language, options).format(value).replace("-", MINUS);
  const decimal = (value, digits = 3) =>
    isNumber(value) ? write(value, { minimumFractionDigits: digits, maximumFractionDigits: digits }) : NONE;
  const count = (value) => (isNumber(value) ? write(value, { maximumFractionDigits: 0 }) : NONE);
  const percent = (share, digits = 0) =>
    isNumber(share)
      ? write(share, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits })
      : NONE;

  const unit = (value, name) => {
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    const text = write(value, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits });
    return text.replaceAll(" ", "\u00a0");
  };
  const size = (bytes) => {
    if (!isNumber(bytes)) return NONE;
    // in powers of 1024, as in the report; Intl has no units of that kind
    for (const [limit, at] of [[2 ** 30, 2], [2 ** 20, 1], [2 ** 10, 0]]) {
      if (Math.abs(bytes) < limit) continue;
      const value = bytes / limit;
      const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
      return `${write(value, { maximumFractionDigits: digits })}\u00a0${BINARY[language.startsWith("ru") ? "ru" : "en"][at]}`;
    }
    return unit(bytes, "byte");
  };
  const duration = (seconds) => {
    if (!isNumber(seconds)) return NONE;
    if (seconds < 1) return unit(seconds * 1000, "millisecond");
    if (seconds < 120) return unit(seconds < 10 ? seconds : Math.round(seconds), "second");
    const [big, small, step] = seconds < 7200 ? ["minute", "second", 60] : ["hour", "minute", 3600];
    const whole = Math.floor(seconds / step);
    const rest = Math.floor((seconds - whole * step) / (step / 60));
    return unit(whole, big) + (rest ? " " + unit(rest, small) : "");
  };
  const range = (low, high, digits = 3) => `[${decimal(low, digits)} … ${decimal(high, digits)}]`;
  return { decimal, count, percent, size, duration, range };
}
