// The page's language: texts with places for values, plural forms, numbers. The texts stand in texts_en.js and texts_ru.js.

import { numbersOf } from "./numbers.js";
import { TEXTS as EN } from "./texts_en.js";
import { TEXTS as RU } from "./texts_ru.js";

export const LANGUAGES = { en: EN, ru: RU };

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function wordsOf(language) {
  const texts = LANGUAGES[language];
  const rules = new Intl.PluralRules(language);
  const numbers = numbersOf(language);

  // A key without a text is a defect that the tests look for; the reader sees the key rather than nothing.
  const say = (key, values = {}) => {
    const text = texts[key];
    return typeof text === "string" ? filled(text, values) : key;
  };
  const plural = (key, count, values = {}) => {
    const forms = texts[key];
    if (typeof forms !== "object") return key;
    const form = forms[rules.select(count)] ?? forms.other;
    return filled(form, { n: numbers.count(count), ...values });
  };
  const known = (key) => key in texts;
  return { language, say, plural, known, numbers };
}

// Static texts of index.html: data-word names the text of an element, data-word-ATTRIBUTE that of an attribute.
const ATTRIBUTES = ["aria-label", "placeholder", "title"];

export function writeStatic(root, words) {
  for (const node of root.querySelectorAll("[data-word]")) node.textContent = words.say(node.dataset.word);
  for (const name of ATTRIBUTES) {
    for (const node of root.querySelectorAll(`[data-word-${name}]`)) {
      node.setAttribute(name, words.say(node.getAttribute(`data-word-${name}`)));
    }
  }
}
