// Values under the pointer, in all charts of a stage at once.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const written = (value, percent) => {
    if (value === null || value === undefined) return "–";
    if (percent) return `${(100 * value).toFixed(1)} %`;
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return String(Number(value.toPrecision(4)));
  };
  const nearest = (xs, x) => {
    let best = 0;
    for (let i = 1; i < xs.length; i += 1) {
      if (Math.abs(xs[i] - x) < Math.abs(xs[best] - x)) best = i;
    }
    return best;
  };

  const open = (figure) => {
    const svg = figure.querySelector("svg");
    const data = JSON.parse(figure.querySelector("script").textContent);
    const output = figure.querySelector("output");
    const [left, right, top, bottom, xLow, xHigh, yLow, yHigh] = data.frame;
    const mark = document.createElementNS(SVG, "g");
    mark.setAttribute("class", "mark");
    const rule = document.createElementNS(SVG, "path");
    mark.append(rule);
    const dots = data.series.map((_, i) => {
      const dot = document.createElementNS(SVG, "circle");
      dot.setAttribute("class", `c${i % 7}`);
      dot.setAttribute("r", "3.5");
      mark.append(dot);
      return dot;
    });
    const placeX = (x) => left + ((right - left) * (x - xLow)) / (xHigh - xLow);
    const placeY = (y) => bottom - ((bottom - top) * (y - yLow)) / (yHigh - yLow);
    const show = (x) => {
      const said = data.series.map((one, k) => {
        const i = nearest(one.x, x);
        const y = one.y[i];
        dots[k].style.display = y === null ? "none" : "";
        dots[k].setAttribute("cx", placeX(one.x[i]));
        if (y !== null) dots[k].setAttribute("cy", placeY(y));
        if (k === 0) rule.setAttribute("d", `M${placeX(one.x[i])} ${top}V${bottom}`);
        const band = one.low ? ` (${written(one.low[i], data.percent)} to ${
          written(one.high[i], data.percent)})` : "";
        const name = data.series.length > 1 ? `${one.name} ` : "";
        return `${name}${written(y, data.percent)}${band}`;
      });
      const at = data.series[0].x[nearest(data.series[0].x, x)];
      output.textContent = `${data.x} ${written(at)}: ${said.join(", ")}`;
      svg.append(mark);
    };
    const hide = () => {
      mark.remove();
      output.textContent = output.dataset.last;
    };
    const xOf = (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      return xLow + ((at - left) / (right - left)) * (xHigh - xLow);
    };
    return { figure, svg, data, show, hide, xOf };
  };

  const known = new Map();
  const chartOf = (figure) => {
    if (!known.has(figure)) known.set(figure, open(figure));
    return known.get(figure);
  };
  const together = (chart) => {
    const stage = chart.figure.closest(".stage");
    const figures = stage ? [...stage.querySelectorAll(".chart")] : [chart.figure];
    return figures.filter((figure) => figure.offsetParent !== null).map(chartOf);
  };
  for (const figure of document.querySelectorAll(".chart")) {
    const svg = figure.querySelector("svg");
    svg.addEventListener("pointermove", (event) => {
      const chart = chartOf(figure);
      const x = chart.xOf(event);
      for (const one of together(chart)) one.show(x);
    });
    const leave = () => {
      for (const one of together(chartOf(figure))) one.hide();
    };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    let at = null;
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const chart = chartOf(figure);
      const xs = chart.data.series[0].x;
      at = at === null ? (step > 0 ? 0 : xs.length - 1) : at + step;
      at = Math.min(Math.max(at, 0), xs.length - 1);
      for (const one of together(chart)) one.show(xs[at]);
    });
  }
})();
