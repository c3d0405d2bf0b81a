// The rollout viewer. What comes from data goes in as text nodes, numbers and classes of our own.
(() => {
  const frame = document.querySelector(".viewer");
  if (!frame) return;
  const island = document.querySelector('script[data-of="rollouts"]');
  const iterations = JSON.parse(island.textContent).iterations;
  const control = (name) => frame.querySelector(`[data-do="${name}"]`);
  const at = { place: 0, group: 0 };

  const make = (tag, name, ...content) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...content);
    return element;
  };
  const written = (value, digits = 3) => {
    if (value === null || value === undefined) return "–";
    return Number.isInteger(value) ? String(value) : value.toFixed(digits);
  };
  const signed = (value) => (value > 0 ? "+" : "") + written(value, 2);
  const known = (values) => values.filter((x) => x !== null && x !== undefined);

  // Blue above zero, orange below: told apart by colour-blind eyes.
  const tint = (value, most) => {
    if (value === null || value === undefined || !most) return "";
    const strength = Math.min(Math.abs(value) / most, 1) * 0.6;
    return value >= 0 ? `rgba(0,114,178,${strength})` : `rgba(213,94,0,${strength})`;
  };

  // What tokens are coloured by: (completion, token's place) -> number.
  const column = (completion, name) => completion.per_token?.by[name];
  const valueAt = (completion, name, t) => column(completion, name)?.[t] ?? NaN;
  const COLOURS = {
    advantage: { of: (c) => c.advantage, needs: [] },
    "KL to the reference (k3)": {
      of: (c, t) => {
        const own = column(c, "old_logprob") ? "old_logprob" : "sample_logprob";
        const d = valueAt(c, "ref_logprob", t) - valueAt(c, own, t);
        return Math.exp(d) - d - 1;
      },
      needs: ["ref_logprob", "sample_logprob"],
    },
    "change not predicted": {
      of: (c, t) => valueAt(c, "realised_change", t) - valueAt(c, "predicted_change", t),
      needs: ["realised_change", "predicted_change"],
    },
    "ratio old / sampler - 1": {
      of: (c, t) => Math.exp(valueAt(c, "old_logprob", t) - valueAt(c, "sample_logprob", t)) - 1,
      needs: ["old_logprob", "sample_logprob"],
    },
  };
  const colours = (completions) => {
    const names = completions[0]?.per_token ? Object.keys(completions[0].per_token.by) : [];
    const derived = Object.keys(COLOURS).filter((name) =>
      COLOURS[name].needs.every((need) => names.includes(need)));
    return ["none", ...(names.length ? derived : []), ...names];
  };
  const valueOf = (name) => (c, t) => {
    const value = COLOURS[name] ? COLOURS[name].of(c, t) : column(c, name)?.[t];
    return Number.isFinite(value) ? value : null;
  };

  const tokens = (completion, name, most) => {
    const pre = make("pre", "");
    pre.dir = "auto";
    const texts = completion.per_token?.text;
    if (!texts || name === "none") {
      pre.append(completion.text);
      return pre;
    }
    texts.forEach((text, t) => {
      const value = valueOf(name)(completion, t);
      const token = make("span", "token", text || "∎");
      token.style.backgroundColor = tint(value, most);
      token.title = `${name} ${written(value, 4)}`;
      pre.append(token);
    });
    return pre;
  };

  const rewards = (completion) => {
    const list = make("dl", "rewards");
    for (const [name, value] of Object.entries(completion.reward)) {
      list.append(make("dt", "", name), make("dd", "", written(value)));
    }
    return list;
  };

  const card = (completion, place, name, most, widest) => {
    const bar = make("span", "bar");
    const share = widest ? Math.abs(completion.advantage || 0) / widest : 0;
    bar.style.width = `${Math.round(50 * share)}%`;
    bar.classList.add((completion.advantage || 0) >= 0 ? "up" : "down");
    const head = make("p", "head", make("b", "", written(completion.total)),
      make("span", "", ` advantage ${signed(completion.advantage)}`));
    const foot = make("p", "foot",
      `${written(completion.tokens)} tokens, ends by ${completion.finish}; number ${place + 1}`);
    const article = make("article", "card", head, make("span", "scale", bar),
      tokens(completion, name, most), rewards(completion), foot);
    article.setAttribute("aria-label", `completion ${place + 1}`);
    return article;
  };

  const drawGroup = (group) => {
    const all = group.completions;
    const name = control("colour").value || "none";
    const numbers = [];
    if (name !== "none") {
      for (const c of all) {
        (c.per_token?.text || []).forEach((_, t) => numbers.push(valueOf(name)(c, t)));
      }
    }
    // The largest value but for the most extreme hundredth, which would pale the others.
    const sizes = known(numbers).map(Math.abs).sort((a, b) => a - b);
    const most = sizes[Math.floor(0.99 * (sizes.length - 1))] || sizes[sizes.length - 1];
    const widest = Math.max(...known(all.map((c) => c.advantage)).map(Math.abs), 0);
    const order = control("order").value;
    const places = all.map((_, i) => i);
    if (order) places.sort((a, b) => (all[b][order] ?? -Infinity) - (all[a][order] ?? -Infinity));
    const totals = known(all.map((c) => c.total));
    const mean = totals.reduce((a, b) => a + b, 0) / (totals.length || 1);
    const asked = make("pre", "prompt", group.prompt);
    asked.dir = "auto";
    const scale = name === "none" ? [] : [make("p", "remark",
      `Colour: blue above 0, orange below, full from ${written(most, 3)} on; each token says its `
      + "value under the pointer.")];
    frame.querySelector(".group").replaceChildren(
      make("div", "asked", make("p", "head",
        make("b", "", `Group ${at.group + 1}`), ` ${group.id}, mean reward ${written(mean)} `,
        make("span", "gold", `gold ${group.gold}`)), asked),
      ...scale,
      make("div", "cards", ...places.map((i) => card(all[i], i, name, most, widest))));
  };

  const drawGroups = (part) => {
    const totals = part.groups.flatMap((g) => known(g.completions.map((c) => c.total)));
    const [low, high] = [Math.min(...totals), Math.max(...totals)];
    const buttons = part.groups.map((group, g) => {
      const button = make("button", "");
      button.type = "button";
      button.dataset.group = g;
      const said = group.completions.map((c) => written(c.total, 2)).join(", ");
      button.setAttribute("aria-label", `group ${g + 1}, rewards ${said}`);
      button.setAttribute("aria-pressed", String(g === at.group));
      button.tabIndex = g === at.group ? 0 : -1;
      button.title = `group ${g + 1}: ${said}`;
      for (const c of group.completions) {
        const cell = make("i", "");
        const share = high > low ? ((c.total ?? low) - low) / (high - low) : 0.5;
        cell.style.opacity = String(0.12 + 0.88 * share);
        button.append(cell);
      }
      return button;
    });
    frame.querySelector(".groups").replaceChildren(...buttons);
  };

  const fill = (select, names, value) => {
    select.replaceChildren(...names.map((name) => {
      const option = make("option", "", name);
      option.value = name;
      return option;
    }));
    select.value = names.includes(value) ? value : names[0];
    select.closest("label").hidden = names.length < 2;
  };

  const draw = () => {
    at.place = Math.min(Math.max(at.place, 0), iterations.length - 1);
    const part = iterations[at.place];
    at.group = Math.min(Math.max(at.group, 0), part.groups.length - 1);
    const own = iterations.filter((one) => one.stage === part.stage);
    control("stage").value = part.stage;
    const range = control("iteration");
    range.max = own.length - 1;
    range.value = own.indexOf(part);
    const shown = part.groups.length < part.of ? `, ${part.groups.length} of ${part.of} groups` : "";
    frame.querySelector('[data-at="iteration"]').textContent =
      `iteration ${part.iteration}${shown}`;
    const group = part.groups[at.group];
    fill(control("colour"), colours(group.completions), control("colour").value);
    drawGroups(part);
    drawGroup(group);
  };

  const go = (place, group) => {
    at.place = place;
    at.group = group;
    draw();
    const part = iterations[at.place];
    const where = `#rollouts=${encodeURIComponent(part.stage)}:${part.iteration}:${at.group + 1}`;
    try {
      history.replaceState(null, "", where);
    } catch { /* the address is a convenience */ }
  };
  // What an address names, or of its stage the iteration nearest to it; otherwise the newest one.
  const read = () => {
    at.place = iterations.length - 1;
    const found = /^#rollouts=(.*):(\d+):(\d+)$/.exec(location.hash);
    if (!found) return false;
    let stage = found[1];
    try {
      stage = decodeURIComponent(stage);
    } catch { /* as it stands */ }
    const away = (part) => Math.abs(part.iteration - Number(found[2]));
    const own = iterations.filter((part) => part.stage === stage);
    if (!own.length) return false;
    const nearest = own.reduce((best, part) => (away(part) < away(best) ? part : best));
    Object.assign(at, { place: iterations.indexOf(nearest), group: Number(found[3]) - 1 });
    return true;
  };

  const stages = [...new Set(iterations.map((part) => part.stage))];
  fill(control("stage"), stages, stages[0]);
  control("stage").addEventListener("change", (event) => {
    go(iterations.findIndex((part) => part.stage === event.target.value), at.group);
  });
  control("iteration").addEventListener("input", (event) => {
    const { stage } = iterations[at.place];
    const own = iterations.filter((part) => part.stage === stage);
    go(iterations.indexOf(own[Number(event.target.value)]), at.group);
  });
  control("back").addEventListener("click", () => go(at.place - 1, at.group));
  control("on").addEventListener("click", () => go(at.place + 1, at.group));
  control("order").addEventListener("change", draw);
  control("colour").addEventListener("change", draw);
  frame.querySelector(".groups").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) go(at.place, Number(button.dataset.group));
  });
  frame.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input")) return;
    const step = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    const inside = event.target.closest(".groups");
    go(at.place + step[0], at.group + step[1]);
    if (inside) frame.querySelector('.groups [aria-pressed="true"]').focus();
  });
  window.addEventListener("hashchange", () => {
    if (read()) draw();
  });
  const named = read();
  draw();
  if (named) {
    window.addEventListener("load", () => document.getElementById("rollouts").scrollIntoView());
  }
})();
