// Lists that keys can work through: within data-keys, each data-item. A key acts on the item that has
// the focus, and only by clicking what the item offers.
"use strict";

(() => {
  const list = () => document.querySelector("[data-keys]");
  const items = () => [...(list()?.querySelectorAll("[data-item]") ?? [])];
  const focused = () => document.activeElement?.closest?.("[data-keys] [data-item]");

  function move(step) {
    const all = items();
    if (!all.length) return;
    const now = all.indexOf(focused());
    const next = now < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(now + step, 0), all.length - 1);
    all[next].focus();
    all[next].scrollIntoView({ block: "nearest" });
  }

  function press(item, key) {
    if (!item) return false;
    let button = item.querySelector(`[data-key="${CSS.escape(key)}"]`);
    // Enter, and r, do what is done first.
    if (!button && (key === "r" || key === "Enter")) button = item.querySelector("[data-key]") ?? item.querySelector("[data-open]");
    if (key === "o") button = item.querySelector("[data-open]");
    button?.click();
    return Boolean(button);
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]") || event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    const { key } = event;
    if (key === "?") document.querySelector("[data-help]")?.click();
    else if (key === "j") move(1);
    else if (key === "k") move(-1);
    else if (key === "Enter" && event.target !== focused()) return; // A link or button has it.
    else if (key === " " || !press(focused(), key === "Enter" ? "r" : key)) return;
    event.preventDefault();
  });
})();
