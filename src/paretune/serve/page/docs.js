// The API's page: draws /openapi.json as text; nothing from it is ever taken as markup.
const make = (name, text = "", kind = "") => {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

const resolved = (schema, whole) => {
  const name = schema?.$ref?.split("/").pop();
  return name ? { ...whole.components.schemas[name], called: name } : schema;
};

function typeOf(schema, whole) {
  const one = resolved(schema ?? {}, whole);
  if (one.called) return one.called;
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
  const several = one.anyOf ?? one.oneOf;
  if (several) return several.map((part) => typeOf(part, whole)).join(" | ");
  if (one.type === "array") return `list of ${typeOf(one.items, whole)}`;
  if (one.additionalProperties && one.type === "object") return `{name: ${typeOf(one.additionalProperties, whole)}}`;
  return one.format ? `${one.type} (${one.format})` : (one.type ?? "anything");
}

function limitsOf(schema) {
  const words = { minLength: "at least", maxLength: "at most", minItems: "at least", maxItems: "at most" };
  const units = { minLength: "characters", maxLength: "characters", minItems: "items", maxItems: "items" };
  const found = Object.keys(words)
    .filter((key) => schema[key] !== undefined)
    .map((key) => `${words[key]} ${schema[key]} ${units[key]}`);
  if (schema.minimum !== undefined) found.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined) found.push(`≤ ${schema.maximum}`);
  if (schema.default !== undefined && schema.default !== null) found.push(`default ${JSON.stringify(schema.default)}`);
  return [schema.description, ...found].filter(Boolean).join("; ");
}

function table(heads, rows) {
  const element = make("table");
  const head = element.createTHead().insertRow();
  for (const text of heads) {
    const cell = make("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  const body = element.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const text of cells) row.insertCell().textContent = text;
  }
  return element;
}

function shape(schema, whole, seen = new Set()) {
  const one = resolved(schema, whole);
  const parts = [];
  if (one.properties && !seen.has(one.called)) {
    seen.add(one.called);
    if (one.called) parts.push(make("h4", one.called));
    if (one.description) parts.push(make("p", one.description, "note"));
    const rows = Object.entries(one.properties).map(([name, inner]) => [
      (one.required ?? []).includes(name) ? name : `${name} (may be left out)`,
      typeOf(inner, whole),
      limitsOf(inner),
    ]);
    parts.push(table(["key", "value", ""], rows));
    for (const inner of Object.values(one.properties)) parts.push(...nested(inner, whole, seen));
  }
  return parts.length ? parts : nested(one, whole, seen);
}

function nested(schema, whole, seen) {
  if (!schema || typeof schema !== "object") return [];
  if (schema.$ref) return shape(schema, whole, seen);
  const inner = [schema.items, schema.additionalProperties, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
  return inner.flatMap((one) => nested(one, whole, seen));
}

function call(path, verb, about, whole) {
  const box = make("details", "", "call");
  const summary = make("summary");
  summary.append(make("span", verb.toUpperCase(), "verb"), make("code", path), make("span", about.summary ?? "", "quiet"));
  const inside = make("div");
  if (about.description) inside.append(make("p", about.description));
  const places = (about.parameters ?? []).map((one) => [one.name, one.in, typeOf(one.schema, whole), one.description ?? ""]);
  if (places.length) inside.append(make("h3", "Parameters"), table(["name", "in", "value", ""], places));
  const sent = about.requestBody?.content?.["application/json"]?.schema;
  if (sent) inside.append(make("h3", "Body"), ...shape(sent, whole));
  const good = about.responses?.["200"]?.content?.["application/json"]?.schema;
  if (good) inside.append(make("h3", "Answer"), ...shape(good, whole));
  const statuses = Object.entries(about.responses ?? {}).map(([status, one]) => [status, one.description ?? ""]);
  inside.append(make("h3", "Statuses"), table(["status", "when"], statuses));
  box.append(summary, inside);
  return box;
}

async function draw() {
  const main = document.getElementById("calls");
  try {
    const whole = await (await fetch("/openapi.json")).json();
    const calls = Object.entries(whole.paths).flatMap(([path, verbs]) =>
      Object.entries(verbs).map(([verb, about]) => call(path, verb, about, whole)),
    );
    main.replaceChildren(...calls);
  } catch {
    main.replaceChildren(make("p", "The document could not be read.", "warn"));
  }
}

draw();
