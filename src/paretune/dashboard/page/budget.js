// The budget slider. The server sent resampled studies; here is only counted, in how many of them each method is the
// best of those that fit, which takes no time that a hand would feel.
"use strict";
(() => {
  const form = document.getElementById("budget");
  if (!form) return;
  const { said, fill, lang } = window.paretune;
  const STEPS = 200;
  const TENTH_MEGABYTE = 1e5;
  const memory = document.getElementById("memory");
  const seconds = document.getElementById("seconds");
  const ends = (name) => [Number(form.dataset[`${name}Low`]), Number(form.dataset[`${name}High`])];
  const limit = (input, [low, high]) => {
    const place = Number(input.value);
    return place >= STEPS ? Infinity : low * (high / low) ** (place / (STEPS - 1));
  };
  const unit = (value, name) =>
    new Intl.NumberFormat(lang, { style: "unit", unit: name, unitDisplay: "short", maximumSignificantDigits: 3 }).format(value);
  // As everywhere in powers of 1024, for which Intl has no units: their names come with the page.
  const size = (bytes) => {
    const [value, name] = bytes >= 2 ** 30 ? [bytes / 2 ** 30, said.gib] : [bytes / 2 ** 20, said.mib];
    return `${new Intl.NumberFormat(lang, { maximumSignificantDigits: 3 }).format(value)}\u00a0${name}`;
  };
  const duration = (time) =>
    time < 1 ? unit(time * 1000, "millisecond") : time < 120 ? unit(time, "second") : time < 7200 ? unit(time / 60, "minute") : unit(time / 3600, "hour");
  const percent = (share) => new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: 0 }).format(share);

  // Shares of draws in which each method is best, shares in which it fits, and the share in which nothing fits.
  const count = (draws, most_memory, most_seconds) => {
    const methods = draws.methods.length;
    const total = methods ? draws.places[0].length : 0;
    const best = new Array(methods).fill(0);
    const fits = new Array(methods).fill(0);
    let nothing = 0;
    for (let draw = 0; draw < total; draw += 1) {
      let top = -1;
      let equal = [];
      for (let method = 0; method < methods; method += 1) {
        if (draws.memory[method][draw] * TENTH_MEGABYTE > most_memory || draws.seconds[method][draw] > most_seconds * 1000) continue;
        fits[method] += 1;
        const place = draws.places[method][draw];
        if (place > top) {
          top = place;
          equal = [method];
        } else if (place === top) {
          equal.push(method);
        }
      }
      for (const method of equal) best[method] += 1 / equal.length;
      if (!equal.length) nothing += 1;
    }
    const share = (value) => (total ? value / total : 0);
    return { best: best.map(share), fits: fits.map(share), nothing: share(nothing) };
  };

  let draws = null;
  let wait = 0;
  const show = () => {
    const most_memory = limit(memory, ends("memory"));
    const most_seconds = limit(seconds, ends("seconds"));
    const texts = [
      [memory, "memory-out", most_memory, size],
      [seconds, "seconds-out", most_seconds, duration],
    ];
    for (const [input, out, value, write] of texts) {
      const text = value === Infinity ? said.free : write(value);
      document.getElementById(out).textContent = text;
      input.setAttribute("aria-valuetext", text);
    }
    if (!draws) return;
    const found = count(draws, most_memory, most_seconds);
    for (const row of document.querySelectorAll("#chances tbody tr")) {
      const at = draws.methods.indexOf(row.dataset.method);
      if (at < 0) continue;
      row.querySelector(".fill").setAttribute("width", (100 * found.best[at]).toFixed(1));
      row.querySelector(".chance").textContent = percent(found.best[at]);
      const fits = found.fits[at];
      row.querySelector(".fits").textContent = fits === 0 ? said.never : fits < 1 ? fill(said.fits, { share: percent(fits) }) : "";
      row.classList.toggle("out", fits === 0);
    }
    clearTimeout(wait); // told once the hand rests, not at each step
    wait = setTimeout(() => {
      const order = found.best.map((share, at) => [share, draws.methods[at]]).filter((one) => one[0] >= 0.005);
      order.sort((a, b) => b[0] - a[0]);
      const names = order.slice(0, 4).map(([share, name]) => `${name} ${percent(share)}`).join(", ");
      const parts = [found.nothing >= 1 ? said.none : fill(said.best, { methods: names })];
      if (found.nothing > 0 && found.nothing < 1) parts.push(fill(said.partly, { share: percent(found.nothing) }));
      document.getElementById("budget-said").textContent = parts.join(" ");
    }, 250);
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
  fetch(`${location.pathname.replace(/\/budget$/, "")}/draws.json`)
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status)))))
    .then((tree) => {
      draws = tree;
      form.dataset.ready = "true";
      show();
    })
    .catch((error) => console.warn(error));
})();
