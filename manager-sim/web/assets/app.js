// With JavaScript a page keeps itself up to date and opens forms in a dialog.
// Everything works without it.
"use strict";
(() => {
  const live = document.getElementById("live");
  const link = document.getElementById("link");

  // key identifies an element by its id, or by the first id in it, as a row's link has.
  const key = (n) => n.id || n.querySelector?.("[id]")?.id || "";
  const same = (a, b) => a && a.nodeName === b.nodeName && key(a) === key(b);

  // patch changes old into next and keeps every element that is the same already,
  // with its focus and open details, so that a click does not miss.
  function patch(old, next) {
    const stay = new Set([...next.children].map(key));
    const kept = new Map();
    for (const e of [...old.children]) {
      const k = key(e);
      if (k && !stay.has(k)) e.remove();
      else if (k) kept.set(k, e);
    }
    let at = old.firstChild;
    for (const n of [...next.childNodes]) {
      const k = key(n), o = k ? kept.get(k) : at;
      if (!same(o, n)) { old.insertBefore(n, at); continue; }
      if (o === at) at = at.nextSibling; else old.insertBefore(o, at);
      if (o.isEqualNode(n)) continue;
      if (n.nodeType !== Node.ELEMENT_NODE) { o.nodeValue = n.nodeValue; continue; }
      for (const { name } of [...o.attributes]) if (!n.hasAttribute(name) && name !== "open") o.removeAttribute(name);
      for (const { name, value } of n.attributes) if (o.getAttribute(name) !== value) o.setAttribute(name, value);
      patch(o, n);
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  // refresh fetches this page again and replaces its live part. The focus stays.
  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.redirected) { location.reload(); return; }
      if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
        const at = document.activeElement;
        const typing = at && live.contains(at) && at.matches("input, select, textarea");
        if (next && !typing) {
          patch(live, next);
          // A row that moved lost the focus.
          if (at && document.activeElement !== at && at.id) document.getElementById(at.id)?.focus();
        }
      }
    } catch { /* the stream reports when the manager is unreachable */ }
    busy = false;
    if (again) { again = false; later(); }
  }

  // At most two refreshes a second, however much happens.
  let timer = 0;
  function later() { timer ||= setTimeout(() => { timer = 0; refresh(); }, 500); }

  if (live && document.body.dataset.live === "yes") {
    const stream = new EventSource("/admin/stream");
    // No message reports what happened before the stream opened.
    stream.onopen = () => { link.hidden = true; refresh(); };
    stream.onmessage = later;
    stream.onerror = () => { link.hidden = false; };
    setInterval(later, 15000); // relative times
  }

  // Links to forms open in a dialog.
  document.addEventListener("click", async (e) => {
    const a = e.target.closest("a[data-dialog]");
    if (!a || e.ctrlKey || e.metaKey || e.shiftKey || typeof HTMLDialogElement === "undefined") return;
    e.preventDefault();
    try {
      const answer = await fetch(a.href);
      const form = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("dialog");
      if (!form) { location.href = a.href; return; }
      const box = document.createElement("dialog");
      box.setAttribute("aria-labelledby", "dialog-title");
      box.append(...form.childNodes);
      let cancel = box.querySelector(".cancel");
      if (!cancel) {
        cancel = document.createElement("button");
        cancel.type = "button"; cancel.textContent = "Cancel";
        (box.querySelector("form .buttons") || box).append(cancel);
      }
      cancel.addEventListener("click", (e) => { e.preventDefault(); box.close(); });
      box.addEventListener("close", () => { box.remove(); document.getElementById(a.id)?.focus(); });
      document.body.append(box);
      box.showModal();
    } catch { location.href = a.href; }
  });
})();
