// A loss curve as SVG of its own: small, and quick enough to be drawn again every few seconds.
"use strict";
(() => {
  const NAMESPACE = "http://www.w3.org/2000/svg"; // an identifier; nothing is fetched
  const WIDTH = 360;
  const HEIGHT = 120;
  const LEFT = 40;
  const BOTTOM = 18;
  const node = (name, values, text) => {
    const made = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, String(value));
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // points: [step, loss]; a loss that is no number leaves a gap
  const curve = (points, steps, label, write) => {
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": label });
    const finite = points.filter((point) => point[1] !== null);
    if (finite.length === 0) return svg;
    const high = Math.max(...finite.map((point) => point[1])) * 1.05 || 1;
    const end = Math.max(steps || 0, finite[finite.length - 1][0], 1);
    const x = (step) => LEFT + ((WIDTH - LEFT - 4) * step) / end;
    const y = (loss) => 4 + (HEIGHT - BOTTOM - 4) * (1 - Math.max(0, loss) / high);
    let path = "";
    let pen = false;
    for (const [step, loss] of points) {
      if (loss === null) {
        pen = false;
        continue;
      }
      path += `${pen ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`;
      pen = true;
    }
    const base = HEIGHT - BOTTOM;
    svg.append(
      node("path", { class: "axis", d: `M${LEFT} 4V${base}H${WIDTH - 4}` }),
      node("text", { x: LEFT - 4, y: 12, "text-anchor": "end" }, write(high)),
      node("text", { x: LEFT - 4, y: base, "text-anchor": "end" }, write(0)),
      node("text", { x: LEFT, y: HEIGHT - 4 }, "0"),
      node("text", { x: WIDTH - 4, y: HEIGHT - 4, "text-anchor": "end" }, String(end)),
      node("path", { class: "line", d: path }),
    );
    return svg;
  };
  window.paretune.curve = curve;
})();
