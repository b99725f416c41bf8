// Talking to the service: one door for every request, with the key, a time limit, and errors that say what happened.

const KEY = "paretune.key"; // sessionStorage: gone when the tab closes
const TIMEOUT_MS = 40_000;

// kind: "auth" | "forbidden" | "overloaded" | "draining" | "validation" | "too_large" | "not_found" | "backend" | "down" | "strange"
export class ServiceError extends Error {
  constructor(kind, detail = "", retryAfterSeconds = null, requestId = "") {
    super(detail || kind);
    this.kind = kind;
    this.detail = detail;
    this.retryAfterSeconds = retryAfterSeconds;
    this.requestId = requestId;
  }
}

let memoryKey = null; // where sessionStorage is switched off

export function readKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return memoryKey;
  }
}

export function writeKey(key) {
  memoryKey = key;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // kept in memory above
  }
}

const listeners = { auth: [], alive: [], down: [] };

// "auth": the service wants a key; "alive" and "down": whether the last request reached it.
export function on(event, listener) {
  listeners[event].push(listener);
}

function tell(event) {
  for (const listener of listeners[event]) listener();
}

const KINDS = { 401: "auth", 403: "forbidden", 404: "not_found", 413: "too_large", 429: "overloaded", 503: "draining" };

function kindOf(status) {
  if (status in KINDS) return KINDS[status];
  return status >= 400 && status < 500 ? "validation" : "backend";
}

// Retry-After is a number of seconds or a date.
export function retrySeconds(header, now = Date.now()) {
  if (header === null || header.trim() === "") return null;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, (at - now) / 1000);
}

async function body(answer) {
  try {
    return await answer.json();
  } catch {
    return null;
  }
}

function errorDetail(json) {
  if (typeof json?.error === "string") return json.error;
  return typeof json?.detail === "string" ? json.detail : "";
}

async function send(path, options, signal) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const key = readKey();
  const headers = { accept: "application/json", ...(options.body ? { "content-type": "application/json" } : {}) };
  if (key) headers.authorization = `Bearer ${key}`;
  try {
    return await fetch(path, {
      ...options,
      headers,
      cache: "no-store",
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    tell("down");
    throw new ServiceError("down");
  }
}

// quiet: a refusal for want of a key is the caller's to bear; the reader is not asked for one.
async function request(path, { options = {}, signal = null, quiet = false } = {}) {
  const answer = await send(path, options, signal);
  tell("alive");
  const json = await body(answer);
  if (answer.ok) {
    if (json === null || typeof json !== "object") throw new ServiceError("strange");
    return json;
  }
  if (answer.status === 401 && !quiet) tell("auth");
  const retry = retrySeconds(answer.headers.get("retry-after"));
  throw new ServiceError(kindOf(answer.status), errorDetail(json), retry, String(json?.request_id ?? ""));
}

function post(path, value, signal) {
  return request(path, { options: { method: "POST", body: JSON.stringify(value) }, signal });
}

function list(json, name) {
  if (!Array.isArray(json[name])) throw new ServiceError("strange");
  return json[name];
}

export async function models(signal = null) {
  return list(await request("v1/models", { signal }), "data");
}

// All bundles of the store with their states; for keys of the admin scope.
export async function registry(signal = null) {
  return list(await request("v1/adapters", { signal, quiet: true }), "adapters");
}

export async function classify(texts, adapter, signal = null) {
  const results = list(await post("v1/classify", { inputs: texts, adapter }, signal), "results");
  if (results.length !== texts.length) throw new ServiceError("strange");
  return results;
}

// The answers, and the adapters that could not answer: [{ adapter, error }].
export async function compare(text, signal = null) {
  const json = await post("v1/compare", { text }, signal);
  return { results: list(json, "results"), failed: Array.isArray(json.failed) ? json.failed : [] };
}

export function status(signal = null) {
  return request("v1/status", { signal });
}
