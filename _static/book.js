// What the theme leaves to do for readers who use a keyboard or a screen reader.
(function () {
  "use strict";

  const WIDE = "div.math, span.math > mjx-container, .table-scroll, .pst-scrollable-table-container, div.highlight pre, .cell_output pre, dt.sig";
  const NAMES = [["div.math, mjx-container", "Formula"], [".table-scroll, .pst-scrollable-table-container", "Table"], ["dt.sig", "Signature"], ["pre", "Code"]];

  // A box that scrolls must be reachable by keyboard; one that does not must not be a stop on the way.
  function markScrollable() {
    for (const box of document.querySelectorAll(WIDE)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("scrolls", scrolls);
      if (scrolls) {
        box.setAttribute("tabindex", "0");
        if (!box.matches("dt")) {
          box.setAttribute("role", "group");
          box.setAttribute("aria-label", NAMES.find(([selector]) => box.matches(selector))[1]);
        }
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  }

  // A formula is a box, and browsers break lines after a box even where a comma follows.
  function keepPunctuation() {
    for (const math of document.querySelectorAll("span.math")) {
      const next = math.nextSibling;
      const mark = next && next.nodeType === Node.TEXT_NODE && next.data.match(/^[,.;:!?)’”-]+/);
      if (!mark || math.querySelector(".scrolls")) continue;
      const box = document.createElement("span");
      box.className = "with-punctuation";
      math.replaceWith(box);
      box.append(math, mark[0]);
      next.data = next.data.slice(mark[0].length);
    }
  }

  // The theme names some controls otherwise than they read, and the arrows of the contents not at all.
  function nameControls() {
    for (const control of document.querySelectorAll(".search-button-field, details.hide > summary")) {
      control.removeAttribute("aria-label");
    }
    for (const launch of document.querySelectorAll("a[href*='mybinder.org'], a[href*='colab.research']")) {
      launch.title = `${launch.title || launch.textContent.trim()} (leaves this site)`.trim();
    }
    for (const summary of document.querySelectorAll(".bd-links summary")) {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", `Pages of ${link.textContent.trim()}`);
    }
  }

  // The menu scrolls below logo and search; it opens where the reader is.
  function showPlaceInMenu() {
    const menu = document.querySelector(".sidebar-primary-items__start > .sidebar-primary-item:last-child");
    const here = menu && menu.querySelector("li.current.active > a, a.current");
    if (!here) return;
    const down = here.getBoundingClientRect().top - menu.getBoundingClientRect().top;
    if (down > menu.clientHeight - 60) menu.scrollTop = down - menu.clientHeight / 2;
  }

  // Code that derives is folded; one switch opens all of it, and the next page remembers.
  function addCodeSwitch() {
    const folds = document.querySelectorAll("div.cell details.hide");
    const title = document.querySelector(".bd-article h1");
    if (!folds.length || !title) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "code-switch";
    const set = (open) => {
      for (const fold of folds) fold.open = open;
      button.setAttribute("aria-pressed", String(open));
      button.textContent = open ? "Hide code that derives" : "Show all code";
    };
    set(localStorage.getItem("all-code") === "shown");
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-pressed") !== "true";
      localStorage.setItem("all-code", open ? "shown" : "folded");
      set(open);
    });
    title.after(button);
  }

  function whenTypeset(then) {
    const startup = window.MathJax && window.MathJax.startup;
    if (startup && startup.promise) startup.promise.then(then);
    else then();
  }

  document.addEventListener("DOMContentLoaded", () => {
    nameControls();
    addCodeSwitch();
    showPlaceInMenu();
  });
  window.addEventListener("load", () => {
    markScrollable();
    whenTypeset(() => {
      keepPunctuation();
      markScrollable();
      // Typesetting changes heights, so a link into the page has to be followed again.
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target) target.scrollIntoView();
    });
    window.addEventListener("resize", markScrollable);
  });
})();
