// What a link leads to, shown beside it: an entry of the glossary, a claim, a function of the library.
// The entry is read from the site's own page when a reader points at the link or reaches it by keyboard.
(function () {
  "use strict";

  const LINKS = "a.term, a.api-link, .bd-article a.reference[href*='#claim-']:not(.claim-label)";
  const DELAY = 180;
  const pages = new Map();
  let box, timer, shownFor;

  function page(url) {
    const address = url.href.split("#")[0];
    if (address === location.href.split("#")[0]) return Promise.resolve(document);
    if (!pages.has(address)) {
      const text = fetch(address).then((answer) => (answer.ok ? answer.text() : Promise.reject(answer.status)));
      pages.set(address, text.then((html) => new DOMParser().parseFromString(html, "text/html")));
    }
    return pages.get(address);
  }

  // A term or a function is a <dt> whose <dd> says what it is; a claim is a card.
  function excerpt(target) {
    const content = document.createElement("div");
    if (!target.matches("dt")) {
      content.append(target.cloneNode(true));
    } else {
      content.append(...[...target.cloneNode(true).childNodes].filter((node) => !node.matches || !node.matches(".headerlink")));
      const head = document.createElement("p");
      head.className = "preview-head";
      head.append(...content.childNodes);
      content.append(head);
      const said = target.nextElementSibling;
      const paragraph = said && (said.querySelector("p") || said);
      if (paragraph) content.append(paragraph.cloneNode(true));
    }
    for (const node of content.querySelectorAll("[id]")) node.removeAttribute("id");
    for (const link of content.querySelectorAll("a")) link.replaceWith(...link.childNodes);
    return content;
  }

  function place(link) {
    const at = link.getBoundingClientRect();
    const width = Math.min(480, document.documentElement.clientWidth - 24);
    box.style.width = `${width}px`;
    box.style.left = `${Math.max(12, Math.min(at.left, document.documentElement.clientWidth - width - 12)) + scrollX}px`;
    const below = at.bottom + box.offsetHeight + 12 < innerHeight || at.top < box.offsetHeight + 12;
    box.style.top = `${(below ? at.bottom + 6 : at.top - box.offsetHeight - 6) + scrollY}px`;
  }

  function hide() {
    clearTimeout(timer);
    if (shownFor) shownFor.removeAttribute("aria-describedby");
    shownFor = undefined;
    if (box) box.hidden = true;
  }

  async function show(link) {
    const url = new URL(link.href, location.href);
    if (url.origin !== location.origin || !url.hash) return;
    let target;
    try {
      target = (await page(url)).getElementById(decodeURIComponent(url.hash.slice(1)));
    } catch {
      return; // the link itself still leads there
    }
    if (!target || timer === undefined) return;
    if (!box) {
      box = document.createElement("div");
      box.id = "preview";
      box.className = "preview";
      box.setAttribute("role", "tooltip");
      box.addEventListener("mouseleave", hide);
      document.body.append(box);
    }
    box.replaceChildren(excerpt(target));
    box.hidden = false;
    shownFor = link;
    link.setAttribute("aria-describedby", box.id);
    place(link);
    const math = window.MathJax && window.MathJax.typesetPromise;
    if (math && target.ownerDocument !== document) {
      await math([box]);
      if (shownFor === link) place(link);
    }
  }

  function wait(event) {
    const link = event.target.closest && event.target.closest(LINKS);
    if (!link || link === shownFor) return;
    hide();
    timer = setTimeout(() => show(link), DELAY);
  }

  function leave(event) {
    if (!event.target.closest || !event.target.closest(LINKS)) return;
    if (box && event.relatedTarget && box.contains(event.relatedTarget)) return;
    hide();
  }

  document.addEventListener("mouseover", wait);
  document.addEventListener("focusin", wait);
  document.addEventListener("mouseout", leave);
  document.addEventListener("focusout", leave);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
