"use strict";
(() => {
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // --- figures -----------------------------------------------------------------------------------------------------------
  const figures = data("figures");
  const themed = (layout, narrow) => {
    const out = structuredClone(layout);
    const [ink, soft, line] = [css("--ink"), css("--soft"), css("--line")];
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--accent") };
    out.margin = { ...out.margin, t: 40, r: narrow ? 12 : 28, ...(narrow ? { l: 44 } : {}) };
    Object.assign(out, { template: {}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
    delete out.width; delete out.height;
    out.font = { ...out.font, color: ink, family: css("--sans"), size: 13 };
    out.hoverlabel = { bgcolor: css("--card"), bordercolor: line, font: { color: ink, family: css("--sans") } };
    if (out.xaxis?.visible === false) Object.assign(out.margin, { b: 16, l: 16 });
    out.legend = { ...out.legend, bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: narrow ? 11 : 13 }, ...(narrow ? { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", title: {} } : {}) };
    if (narrow) out.font.size = 11;
    const axis = (a) => ({ ...a, gridcolor: line, linecolor: soft, zerolinecolor: line, tickcolor: soft, tickfont: { ...(a || {}).tickfont, color: soft }, automargin: true });
    for (const key of Object.keys(out)) if (/^[xy]axis\d*$/.test(key)) out[key] = axis(out[key]);
    for (const key of ["xaxis", "yaxis"]) if (!out[key] && !out.ternary) out[key] = axis({});
    if (out.ternary) {
      out.ternary.bgcolor = "rgba(0,0,0,0)";
      for (const key of ["aaxis", "baxis", "caxis"]) out.ternary[key] = axis(out.ternary[key]);
    }
    for (const note of out.annotations || []) note.font = { ...note.font, color: soft };
    return out;
  };
  // a figure's ink and paper follow the page; its other colours can be told apart on both
  const inked = (value) => {
    if (Array.isArray(value)) return value.map(inked);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inked(item)]));
    if (value === "#000000" || value === "#111827") return css("--ink");
    if (value === "#374151") return css("--soft");
    if (value === "white") return css(dark.matches ? "--faint" : "--card");
    if (value === "#0072B2" && dark.matches) return "#56B4E9";
    return value === "#6B7280" ? css("--soft") : value;
  };
  const draw = () => {
    for (const box of document.querySelectorAll(".plot")) {
      const figure = figures[box.dataset.figure], narrow = box.clientWidth < 560, traces = inked(figure.data);
      // on a phone the colour scale lies below the figure, where it takes no width
      if (narrow) for (const trace of traces) if (trace.marker?.colorbar) Object.assign(trace.marker.colorbar, { orientation: "h", y: -0.02, yanchor: "top", len: 0.8, thickness: 9, title: { text: (trace.marker.colorbar.title?.text || "").replace("<br>", " "), side: "top" } });
      Plotly.react(box, traces, themed(figure.layout, narrow), { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
    }
  };
  draw();
  dark.addEventListener("change", () => { draw(); if (shown) paint(shown.viewer, shown.scene); });

  // --- structures in 3D: one viewer at a time, for browsers allow few WebGL contexts ------------------------------------------
  const scenes = data("scenes"), looks = data("looks");
  let shown = null;
  const hide = () => {
    if (!shown) return;
    shown.viewer.clear();
    shown.viewer.getCanvas().getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
    shown.live.remove();
    shown.still.style.visibility = "";
    shown.button.textContent = shown.label;
    shown = null;
  };
  const edges = [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]];
  const point = ([x, y, z]) => ({ x, y, z });
  const paint = (viewer, scene) => {
    viewer.clear();
    viewer.setBackgroundColor(css(shown && shown.plain ? "--card" : "--wash"));
    const model = viewer.addModel();
    const atoms = scene.xyz.map((p, k) => ({ elem: scene.elements[k], ...point(p), serial: k, index: k, bonds: [], bondOrder: [], color: parseInt(looks.atoms[scene.elements[k]].colour.slice(1), 16) }));
    for (const [i, j] of scene.bonds) {
      atoms[i].bonds.push(j); atoms[i].bondOrder.push(1); atoms[j].bonds.push(i); atoms[j].bondOrder.push(1);
    }
    model.addAtoms(atoms);
    for (const elem of new Set(scene.elements)) model.setStyle({ elem }, { sphere: { radius: looks.atoms[elem].radius }, stick: { radius: 0.085 } });
    for (const [a, b] of edges) viewer.addCylinder({ start: point(scene.corners[a]), end: point(scene.corners[b]), radius: 0.025, color: css("--cell"), fromCap: 1, toCap: 1 });
    [[4, "a"], [2, "b"], [1, "c"]].forEach(([k, text]) => {
      const [o, e] = [scene.corners[0], scene.corners[k]];
      viewer.addLabel(text, { position: point(e.map((v, i) => v + 0.06 * (v - o[i]))), fontColor: css("--soft"), fontSize: 15, showBackground: false, alignment: "center" });
    });
    viewer.render();
  };
  const show = (button) => {
    const stage = button.closest(".stage"), again = shown && shown.button === button;
    hide();
    if (again) return;
    const live = document.createElement("div"), still = stage.querySelector(".still");
    live.className = "live";
    stage.append(live);
    let viewer = null;
    try { viewer = $3Dmol.createViewer(live, { antialias: true, disableFog: true }); } catch (error) { viewer = null; }
    if (!viewer || !viewer.getCanvas()) {
      live.remove();
      button.textContent = "3D needs WebGL, which this browser does not offer";
      button.disabled = true;
      return;
    }
    const scene = scenes[button.dataset.scene];
    shown = { viewer, scene, live, still, button, label: button.textContent, plain: stage.dataset.plain !== undefined };
    still.style.visibility = "hidden";
    button.textContent = "Back to the picture";
    paint(viewer, scene);
    viewer.zoomTo();
    viewer.setView([...viewer.getView().slice(0, 4), ...looks.view]);
    viewer.zoom(1.08); viewer.render();
    live.querySelector("canvas").setAttribute("aria-label", "Structure in 3D: drag to turn, scroll to zoom");
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-scene]");
    if (button) show(button);
  });

  // --- table of finds: search, sort, open ---------------------------------------------------------------------------------------
  const table = document.getElementById("finds-table");
  if (!table) return;
  const body = table.tBodies[0];
  const pairs = [...body.querySelectorAll("tr.find")].map((row) => ({ row, detail: row.nextElementSibling, text: (row.textContent + " " + row.nextElementSibling.textContent).toLowerCase() }));
  const toggle = (button, open) => {
    const detail = button.closest("tr").nextElementSibling;
    const wanted = open ?? detail.hidden;
    if (!wanted && shown && detail.contains(shown.button)) hide();
    detail.hidden = !wanted;
    button.setAttribute("aria-expanded", String(wanted));
  };
  body.addEventListener("click", (event) => {
    const button = event.target.closest("tr.find > th button");
    if (button) toggle(button);
  });
  for (const link of document.querySelectorAll("a[data-open]")) link.addEventListener("click", () => toggle(document.getElementById(link.dataset.open).querySelector("th button"), true));
  const search = document.getElementById("search"), count = document.getElementById("count");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const { row, detail, text } of pairs) {
      const match = words.every((word) => text.includes(word));
      row.hidden = !match;
      if (!match) toggle(row.querySelector("th button"), false);
      else visible += 1;
    }
    count.textContent = `${visible} of ${pairs.length}`;
  });
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest(".sort");
    if (!button) return;
    const head = button.closest("th"), column = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = ({ row }) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const number = head.classList.contains("n");
    const missing = (text) => number && (text === "" || Number.isNaN(Number(text)));
    pairs.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return (up ? 1 : -1) * (number ? x - y : x.localeCompare(y));
    });
    for (const { row, detail } of pairs) body.append(row, detail);
  });
})();
