"use strict";
// The page is complete without this. Here: the grid's keys, the panel, the filters, the theme.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, className, ...children) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  const matrix = byId("matrix");
  const panel = byId("panel");

  // --- the grid: one tab stop, arrow keys within (WAI-ARIA, grid pattern)
  const rows = all("tbody tr:not(.group)", matrix).map((row) => ({ row, cells: all(".cell", row) }));
  let current = null;

  const enter = (cell, focus = true) => {
    if (current) current.tabIndex = -1;
    current = cell;
    cell.tabIndex = 0;
    if (focus) cell.focus();
  };
  const move = (event) => {
    const shown = rows.filter(({ row }) => !row.hidden);
    const y = shown.findIndex(({ cells }) => cells.includes(event.target));
    if (y < 0 || event.altKey || event.metaKey) return;
    const x = shown[y].cells.indexOf(event.target);
    const width = shown[y].cells.length - 1;
    const height = shown.length - 1;
    const page = 5;
    const places = {
      ArrowLeft: [x - 1, y],
      ArrowRight: [x + 1, y],
      ArrowUp: [x, y - 1],
      ArrowDown: [x, y + 1],
      PageUp: [x, y - page],
      PageDown: [x, y + page],
      Home: [0, event.ctrlKey ? 0 : y],
      End: [width, event.ctrlKey ? height : y],
    };
    const place = places[event.key];
    if (!place) return;
    event.preventDefault();
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    enter(shown[clamp(place[1], height)].cells[clamp(place[0], width)]);
  };
  matrix.setAttribute("role", "grid");
  matrix.setAttribute("aria-readonly", "true");
  for (const { cells } of rows) for (const cell of cells) cell.tabIndex = -1;
  const settle = () => {
    const shown = rows.filter(({ row }) => !row.hidden);
    if (shown.length && !shown.some(({ cells }) => cells.includes(current))) enter(shown[0].cells[1] ?? shown[0].cells[0], false);
  };
  settle();
  matrix.addEventListener("keydown", move);
  matrix.addEventListener("focusin", (event) => {
    if (event.target.classList.contains("cell")) enter(event.target, false);
  });

  // --- the panel: a copy of one details element and of its scenario
  const cellOf = (id) => all("a.cell", matrix).find((cell) => cell.getAttribute("href") === `#${id}`);
  const address = (fragment) => {
    try {
      history.replaceState(null, "", fragment || location.href.split("#")[0]);
    } catch {
      // An opaque origin may forbid it. Then the address stays.
    }
  };
  const neighbour = (step) => {
    const { cells } = rows.find(({ cells }) => cells.includes(current));
    let at = cells.indexOf(current) + step;
    while (cells[at] && !cells[at].dataset.verdict) at += step;
    return at > 0 ? cells[at] : undefined;
  };
  let subject = null;
  const show = (details) => {
    const section = details.closest("section");
    const title = section.querySelector("h4").cloneNode(true);
    title.id = "panel-title";
    const heading = make("p", "subject", details.querySelector(".badge").cloneNode(true), " ");
    heading.append(make("span", "server", details.dataset.server));
    const content = byId("panel-content");
    content.replaceChildren(
      title,
      heading,
      ...[...details.querySelector(".body").children].map((child) => child.cloneNode(true)),
      make("h5", "", "The scenario"),
      section.querySelector(".about").cloneNode(true),
    );
    subject = cellOf(details.id);
    enter(subject, false);
    byId("permalink").setAttribute("href", `#${details.id}`);
    byId("earlier").disabled = !neighbour(-1);
    byId("later").disabled = !neighbour(1);
    address(`#${details.id}`);
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
  };
  const open = (id) => {
    const details = byId(id);
    if (details?.localName !== "details") return false;
    show(details);
    return true;
  };
  const fragment = () => location.hash.slice(1);
  const go = (step) => {
    const cell = neighbour(step);
    if (cell) open(cell.getAttribute("href").slice(1));
  };
  matrix.addEventListener("click", (event) => {
    const cell = event.target.closest("a.cell[data-verdict]");
    if (!cell || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(cell.getAttribute("href").slice(1));
  });
  byId("earlier").addEventListener("click", () => go(-1));
  byId("later").addEventListener("click", () => go(1));
  byId("close").addEventListener("click", () => panel.close());
  byId("permalink").addEventListener("click", async (event) => {
    event.preventDefault();
    try {
      await navigator.clipboard.writeText(location.href);
      event.target.textContent = "Copied";
      setTimeout(() => (event.target.textContent = "Permalink"), 1500);
    } catch {
      // Without a clipboard the address is in the address bar.
    }
  });
  panel.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("pre, .scroll")) return;
    if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight") go(1);
  });
  panel.addEventListener("click", (event) => {
    if (event.target === panel) panel.close(); // the backdrop
  });
  panel.addEventListener("close", () => {
    address("");
    enter(subject); // the browser would go back to the cell that was opened first
  });
  addEventListener("hashchange", () => {
    if (!open(fragment()) && panel.open) panel.close();
  });
  if (fragment() && open(fragment())) {
    // The browser goes to the list below, as it does without script; behind the panel belongs the cell.
    addEventListener("load", () => setTimeout(() => current.scrollIntoView({ block: "center" })));
  }

  // --- the filters: what is chosen is shown, in the matrix and in the list of results
  const chosen = new Set();
  const filter = () => {
    const group = byId("by-group").value;
    const different = byId("by-difference").checked;
    const wanted = (verdict) => !chosen.size || chosen.has(verdict);
    let count = 0;
    for (const { row, cells } of rows) {
      const fits = row.dataset.verdicts.split(" ").some(wanted) && (!different || "differs" in row.dataset);
      row.hidden = !(fits && (!group || row.parentElement.dataset.group === group));
      if (!row.hidden) count += 1;
      for (const cell of cells) cell.classList.toggle("dim", !row.hidden && "verdict" in cell.dataset && !wanted(cell.dataset.verdict));
      const section = byId(cells[0].getAttribute("href").slice(1));
      section.hidden = row.hidden;
      for (const details of all("details", section)) details.hidden = !wanted(details.dataset.verdict);
    }
    for (const body of all("tbody", matrix)) body.hidden = !all("tr:not(.group)", body).some((row) => !row.hidden);
    for (const part of all(".results > [data-group]")) part.hidden = !all("section", part).some((section) => !section.hidden);
    byId("shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} scenarios`;
    settle();
  };
  for (const button of all(".chips button")) {
    button.addEventListener("click", () => {
      const { verdict } = button.dataset;
      if (!chosen.delete(verdict)) chosen.add(verdict);
      button.setAttribute("aria-pressed", String(chosen.has(verdict)));
      filter();
    });
  }
  byId("by-group").addEventListener("change", filter);
  byId("by-difference").addEventListener("change", filter);

  // --- light and dark
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => (byId("theme").textContent = dark() ? "Light" : "Dark");
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("drill-theme", root.dataset.theme);
    } catch {
      // Not remembered, then.
    }
    name();
  });
  system.addEventListener("change", name);
  name();

  // --- printed: the matrix, and the details of all that did not pass
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])").filter((one) => one.dataset.verdict === "fail" || one.dataset.verdict === "error");
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
