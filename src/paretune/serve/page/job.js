// Labelling many texts: batches, waiting as long as the service asks, going on after a break. Nothing here touches the page.

import { ServiceError } from "./api.js";

export const BATCH = 32; // the service's limit of texts a request
const BATCH_BYTES = 400_000; // of UTF-8, well under the service's limit of a body even when escaped
const FIRST_WAIT_SECONDS = 0.5;
const LONGEST_WAIT_SECONDS = 60;
const PATIENCE = 12; // refusals in a row before the job stops; each waits longer than the last
const PATIENCE_DOWN = 5;

const encoder = new TextEncoder();

// Consecutive indices of `texts` that go into one request, from `from` on.
export function nextBatch(indices, texts, from) {
  let bytes = 0;
  let end = from;
  while (end < indices.length && end - from < BATCH) {
    bytes += encoder.encode(JSON.stringify(texts[indices[end]])).length;
    if (bytes > BATCH_BYTES && end > from) break;
    end += 1;
  }
  return indices.slice(from, end);
}

// What the service asked for, but never less than a doubling back-off, with a little chance so that pages do not march in step.
export function waitSeconds(tries, asked, chance = Math.random()) {
  const backOff = Math.min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** tries);
  return Math.max(asked ?? 0, backOff * (0.5 + chance / 2));
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
}

const PASSING = { overloaded: PATIENCE, draining: PATIENCE, down: PATIENCE_DOWN };

async function patient(ask, signal, onWait) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      const passes = error instanceof ServiceError && tries + 1 < (PASSING[error.kind] ?? 0);
      if (signal.aborted || !passes) throw error;
      const seconds = waitSeconds(tries, error.retryAfterSeconds);
      onWait(error.kind, seconds);
      await pause(seconds, signal);
    }
  }
}

// Errors of one text rather than of the service: its batch is asked in halves until the text stands alone.
const OF_A_TEXT = new Set(["validation", "too_large", "backend"]);
const HOPELESS = 40; // texts refused in a row: then it is the service after all

// `results` (one place a text, null where nothing is known) is filled in as answers come, so a job can go on where it stopped.
// classify(texts, signal) → answers; onProgress(); onWait(kind, seconds); throws what stopped it, AbortError when cancelled.
export async function run({ texts, results, classify, signal, onProgress, onWait }) {
  const alone = []; // texts refused since the last answer

  async function batch(indices) {
    try {
      const ask = () => classify(indices.map((index) => texts[index]), signal);
      const answers = await patient(ask, signal, onWait);
      indices.forEach((index, place) => {
        results[index] = answers[place];
      });
      alone.length = 0;
      onProgress();
    } catch (error) {
      if (signal.aborted || !(error instanceof ServiceError) || !OF_A_TEXT.has(error.kind)) throw error;
      if (indices.length === 1) {
        results[indices[0]] = { error: error.detail || error.kind };
        alone.push(indices[0]);
        if (alone.length < HOPELESS) return onProgress();
        for (const index of alone) results[index] = null; // to be asked again when the job goes on
        throw error;
      }
      const middle = Math.ceil(indices.length / 2);
      await batch(indices.slice(0, middle));
      await batch(indices.slice(middle));
    }
  }

  const indices = [];
  texts.forEach((text, index) => {
    if (results[index] !== null) return;
    if (text.trim() === "") results[index] = { empty: true };
    else indices.push(index);
  });
  onProgress();
  for (let from = 0; from < indices.length; ) {
    const part = nextBatch(indices, texts, from);
    await batch(part);
    from += part.length;
  }
}
