// The risk–coverage curve of an adapter as a small drawing: what share it answers, and what share of those is wrong.

import { svg } from "./elements.js";
import { isNumber } from "./numbers.js";

const WIDTH = 300;
const HEIGHT = 164;
const LEFT = 44;
const RIGHT = 14;
const TOP = 26;
const BOTTOM = 34;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1];

// The points of a curve that can be drawn, by coverage; a point that answers nothing has no risk.
export function curvePoints(abstention) {
  return (abstention?.curve ?? [])
    .filter((point) => isNumber(point.coverage) && isNumber(point.risk) && point.coverage > 0)
    .sort((one, other) => one.coverage - other.coverage);
}

// The end of the risk axis: a round number a little above everything drawn.
export function riskLimit(points, abstention) {
  const most = Math.max(0.01, ...points.map((point) => point.risk), abstention.target_risk ?? 0);
  return STEPS.find((step) => step >= most * 1.05) ?? 1;
}

function axes(x, y, limit, words) {
  const { percent } = words.numbers;
  const text = (props, content) => svg("text", { class: "tick", ...props }, content);
  const digits = limit < 0.04 ? 1 : 0;
  const rows = [0, limit / 2, limit].map((risk) => [
    svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(risk), y2: y(risk) }),
    text({ x: LEFT - 6, y: y(risk) + 4, "text-anchor": "end" }, percent(risk, risk ? Math.max(digits, (risk * 100) % 1 ? 1 : 0) : 0)),
  ]);
  const columns = [0, 0.5, 1].map((share) =>
    text({ x: x(share), y: HEIGHT - BOTTOM + 15, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" }, percent(share)),
  );
  const title = text({ x: x(0.5), y: HEIGHT - 4, "text-anchor": "middle" }, words.say("curve_coverage"));
  const upright = text({ x: 0, y: 11 }, words.say("curve_risk"));
  return [...rows.flat(), ...columns, title, upright];
}

function target(x, y, limit, abstention, words) {
  const risk = abstention.target_risk;
  if (!isNumber(risk) || risk > limit) return [];
  return [
    svg("line", { class: "target", x1: x(0), x2: x(1), y1: y(risk), y2: y(risk) }),
    svg("text", { class: "tick", x: x(0) + 4, y: y(risk) - 4 }, words.say("curve_target", { value: words.numbers.percent(risk, 1) })),
  ];
}

function says(points, abstention, words) {
  const { percent } = words.numbers;
  const values = { coverage: percent(abstention.test_coverage), risk: percent(abstention.test_risk, 1) };
  const last = points.at(-1);
  if (last && last.coverage > 0.995) return words.say("curve_says", { ...values, all: percent(last.risk, 1) });
  return words.say("curve_says_short", values);
}

// { drawing: SVG or null, sentence }: the sentence says in words what the drawing shows.
export function curve(abstention, words) {
  const points = curvePoints(abstention);
  const sentence = isNumber(abstention?.test_coverage) ? says(points, abstention, words) : "";
  if (points.length < 2) return { drawing: null, sentence };
  const limit = riskLimit(points, abstention);
  const x = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
  const y = (risk) => HEIGHT - BOTTOM - (Math.min(risk, limit) / limit) * (HEIGHT - BOTTOM - TOP);
  const path = points.map((point, index) => `${index ? "L" : "M"}${x(point.coverage).toFixed(1)} ${y(point.risk).toFixed(1)}`).join("");
  const here = isNumber(abstention.test_coverage) && isNumber(abstention.test_risk) && abstention.test_coverage > 0;
  const drawing = svg(
    "svg",
    { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${words.say("curve_title")}. ${sentence}` },
    axes(x, y, limit, words),
    target(x, y, limit, abstention, words),
    svg("path", { class: "risk", d: path }),
    here ? svg("line", { class: "drop-line", x1: x(abstention.test_coverage), x2: x(abstention.test_coverage), y1: y(abstention.test_risk), y2: y(0) }) : null,
    here ? svg("circle", { class: "here", cx: x(abstention.test_coverage), cy: y(abstention.test_risk), r: 4.5 }) : null,
  );
  return { drawing, sentence };
}
