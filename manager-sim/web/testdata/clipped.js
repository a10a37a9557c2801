// The result names each element with text of its own that a reader at this
// width cannot see: outside the page, cut off by an ancestor, or behind a hover;
// and each word that is broken in its middle, although a line has room for it.
(() => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  const bad = [];
  const width = document.documentElement.clientWidth;
  const name = (e) => `<${e.localName} class="${e.className}"> ${e.textContent.trim().slice(0, 60)}`;
  if (document.documentElement.scrollWidth > width) bad.push("the page scrolls sideways: " + document.documentElement.scrollWidth);
  for (const e of document.body.querySelectorAll("*")) {
    if (e.hasAttribute("title")) bad.push("text that only hovering shows: " + name(e));
    const text = [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
    if (!text.length && !e.matches("input:not([type=hidden]), select, textarea")) continue;
    if (e.closest("option, datalist, thead, .skip, [hidden], svg, script") || e.closest("details:not([open])") && !e.closest("summary")) continue;
    const style = getComputedStyle(e);
    if (style.visibility !== "visible" || style.opacity === "0" || !e.checkVisibility()) {
      if (!e.closest(".in-dialog")) bad.push("hidden: " + name(e));
      continue;
    }
    for (const n of text) for (const m of n.data.matchAll(/[^\s-]+/g)) {
      if (m[0].length > (width > 960 ? 24 : 14)) continue;
      const r = document.createRange();
      r.setStart(n, m.index); r.setEnd(n, m.index + m[0].length);
      const lines = new Set([...r.getClientRects()].filter((b) => b.width > 0).map((b) => Math.round(b.top)));
      if (lines.size > 1) { bad.push("a broken word, " + m[0] + ": " + name(e)); break; }
    }
    const boxes = text.length ? text.flatMap((n) => { const r = document.createRange(); r.selectNodeContents(n); return [...r.getClientRects()]; }) : [e.getBoundingClientRect()];
    for (const box of boxes) {
      if (box.left < -0.5 || box.right > width + 0.5) { bad.push(`outside the page (${box.left} to ${box.right} of ${width}): ` + name(e)); break; }
      let cut = null;
      for (let a = e; a && a !== document.documentElement && !cut; a = a.parentElement) {
        if (getComputedStyle(a).overflow === "visible" || a.matches("input, select, textarea")) continue;
        const r = a.getBoundingClientRect();
        if (box.left < r.left - 0.5 || box.right > r.right + 0.5 || box.top < r.top - 0.5 || box.bottom > r.bottom + 0.5) cut = a;
      }
      if (cut) { bad.push("cut off by " + name(cut) + ": " + name(e)); break; }
    }
  }
  return bad.join("\n");
})()
