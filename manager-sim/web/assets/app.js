// What a page gains with JavaScript: it keeps itself up to date, and opens forms
// in a dialog. Everything works without.
"use strict";
(() => {
  const live = document.getElementById("live");
  const link = document.getElementById("link");

  // refresh fetches this page again and takes over its live part. Where the
  // focus was, it stays.
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
        if (next && !typing && next.innerHTML !== live.innerHTML) {
          const id = at && live.contains(at) ? at.id : "";
          const open = new Set([...live.querySelectorAll("details[open][id]")].map((d) => d.id));
          live.replaceChildren(...next.childNodes);
          open.forEach((d) => document.getElementById(d)?.setAttribute("open", ""));
          if (id) document.getElementById(id)?.focus();
        }
      }
    } catch { /* the stream says when the manager is away */ }
    busy = false;
    if (again) { again = false; later(); }
  }

  // At most two refreshes a second, however much happens.
  let timer = 0;
  function later() { timer ||= setTimeout(() => { timer = 0; refresh(); }, 500); }

  if (live && document.body.dataset.live === "yes") {
    const stream = new EventSource("/admin/stream");
    // What happened between this page and its stream, or while that was lost, no
    // message will tell: look.
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
      const cancel = document.createElement("button");
      cancel.type = "button"; cancel.textContent = "Cancel";
      cancel.addEventListener("click", () => box.close());
      (box.querySelector("form .buttons") || box).append(cancel);
      box.addEventListener("close", () => { box.remove(); document.getElementById(a.id)?.focus(); });
      document.body.append(box);
      box.showModal();
    } catch { location.href = a.href; }
  });

  // Escape puts a chip's explanation away.
  document.addEventListener("keydown", (e) => {
    if (e.key !== "Escape") return;
    const chip = document.activeElement?.closest(".chip");
    if (chip) { chip.classList.add("quiet"); chip.addEventListener("blur", () => chip.classList.remove("quiet"), { once: true }); }
  });
})();
