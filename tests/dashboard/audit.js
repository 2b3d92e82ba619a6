/* What is wrong with a page for those who do not see it well, or not at all; run in the page by test_reading.py. */
() => {
  const faults = [];
  const say = (node, text) => faults.push(`${text}: ${node.outerHTML.slice(0, 160)}`);
  const shown = (node) => node.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true });
  const nameOf = (node) =>
    (node.getAttribute("aria-label") ||
      (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ") ||
      [...(node.labels ?? [])].map((label) => label.textContent).join(" ") ||
      node.textContent ||
      "").trim();

  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title.trim()) faults.push("no title");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`two of id ${id}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const node of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of node.getAttribute(attribute).split(" ")) if (!document.getElementById(id)) say(node, `${attribute} names nothing`);
    }
  }

  let level = 0;
  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].filter(shown);
  if (headings.filter((node) => node.nodeName === "H1").length !== 1) faults.push("not one h1");
  for (const node of headings) {
    const next = Number(node.nodeName[1]);
    if (next > level + 1) say(node, "a heading leaves out a level");
    if (!node.textContent.trim()) say(node, "an empty heading");
    level = next;
  }

  for (const node of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, progress, [tabindex='0'], [role=img]")) {
    if (!shown(node) || node.getAttribute("aria-hidden") === "true") continue;
    if (!nameOf(node)) say(node, "no name");
    if (Number(node.getAttribute("tabindex") ?? 0) > 0) say(node, "its own order of tabbing");
  }
  for (const node of document.querySelectorAll("[aria-hidden=true]")) {
    if (node.querySelector("a[href], button, select")) say(node, "a hidden part can be reached");
  }
  for (const node of document.querySelectorAll("table")) {
    if (!node.caption?.textContent.trim()) say(node, "a table without caption");
    for (const head of node.querySelectorAll("th")) if (!head.scope) say(head, "a head without scope");
  }
  for (const list of document.querySelectorAll("ul, ol")) {
    for (const child of list.children) if (child.nodeName !== "LI") say(child, "no item in a list");
  }

  // ---- contrast: any colour that CSS can write is painted, and its bytes are read -----------------------------
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const bytes = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, at) => value * top[3] + below[at] * (1 - top[3]));
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(bytes(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => (Math.max(light(one), light(other)) + 0.05) / (Math.min(light(one), light(other)) + 0.05);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let looked = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(node) || node.closest(".hidden, .skip, svg, option")) continue;
    const style = getComputedStyle(node);
    const ground = behind(node);
    const found = ratio(over(bytes(style.color), ground), ground);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (found < needed) say(node, `contrast ${found.toFixed(2)}`);
    looked += 1;
  }
  for (const node of document.querySelectorAll("input:not([type=hidden]), select, .button")) {
    if (!shown(node) || node.classList.contains("hidden")) continue;
    const found = ratio(bytes(getComputedStyle(node).borderTopColor).slice(0, 3), behind(node.parentElement));
    if (found < 3) say(node, `border contrast ${found.toFixed(2)}`);
  }
  if (looked < 5) faults.push("hardly any text");
  return faults;
}
