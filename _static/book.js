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
    for (const summary of document.querySelectorAll(".bd-links summary")) {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", `Pages of ${link.textContent.trim()}`);
    }
  }

  function whenTypeset(then) {
    const startup = window.MathJax && window.MathJax.startup;
    if (startup && startup.promise) startup.promise.then(then);
    else then();
  }

  document.addEventListener("DOMContentLoaded", nameControls);
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
