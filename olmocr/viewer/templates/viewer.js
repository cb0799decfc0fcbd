"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const pages = [...document.querySelectorAll(".page")];
  const isIndex = get("list") !== null;

  // Dark or light: as the system has it, until somebody chooses.
  const root = document.documentElement;
  const kept = (value) => {
    try {
      return value === undefined ? localStorage.getItem("olmocr-theme") : localStorage.setItem("olmocr-theme", value);
    } catch {
      return null; // a file may have no storage
    }
  };
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);
  const nameTheme = () => { get("theme").textContent = isDark() ? "Light" : "Dark"; };
  const setTheme = (theme) => {
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    nameTheme();
  };
  const turnTheme = () => { setTheme(isDark() ? "light" : "dark"); kept(root.dataset.theme); };
  setTheme(kept());
  systemIsDark.addEventListener("change", nameTheme);
  get("theme").addEventListener("click", turnTheme);

  const help = get("help");
  get("keys").addEventListener("click", () => help.showModal());
  help.addEventListener("click", (event) => { if (event.target === help) help.close(); });

  // Where one is among the pages: the last whose top has come to where a page that is turned to stands.
  const here = () => {
    const line = parseFloat(getComputedStyle(root).scrollPaddingTop) + 16;
    let at = 0;
    pages.forEach((page, number) => { if (page.getBoundingClientRect().top <= line) at = number; });
    return at;
  };
  const go = (element) => {
    if (!element) return;
    element.scrollIntoView({ block: "start" });
    element.focus({ preventScroll: true });
  };
  const turnPage = (step) => go(pages[Math.min(Math.max(here() + step, 0), pages.length - 1)]);
  const turnToLook = (step) => {
    for (let at = here() + step; pages[at]; at += step) {
      if (pages[at].classList.contains("look")) return go(pages[at]);
    }
  };
  const rail = document.querySelector(".rail");
  if (rail) {
    const links = [...rail.querySelectorAll("a")];
    let waiting = false;
    const mark = () => {
      waiting = false;
      const at = here();
      links.forEach((link, number) => {
        if (number !== at) link.removeAttribute("aria-current");
        else if (!link.hasAttribute("aria-current")) {
          link.setAttribute("aria-current", "true");
          const top = link.offsetTop - rail.clientHeight / 2;
          rail.scrollTo({ top });
        }
      });
    };
    addEventListener("scroll", () => {
      if (!waiting) { waiting = true; requestAnimationFrame(mark); }
    }, { passive: true });
    mark();
  }

  const raw = get("raw");
  const isRaw = () => raw !== null && raw.getAttribute("aria-pressed") === "true";
  const turnRaw = () => {
    const at = here();
    raw.setAttribute("aria-pressed", String(!isRaw()));
    for (const each of document.querySelectorAll(".rendered")) each.hidden = isRaw();
    for (const each of document.querySelectorAll(".raw")) each.hidden = !isRaw();
    pages[at]?.scrollIntoView({ block: "start" });
    find();
  };
  raw?.addEventListener("click", turnRaw);

  // Equations, where KaTeX came with the page; their source stays where it cannot read it.
  if (globalThis.katex) {
    const signs = [["$$", "$$"], ["\\[", "\\]"], ["\\(", "\\)"], ["$", "$"]];
    for (const element of document.querySelectorAll(".math")) {
      const source = element.textContent;
      const [opener, closer] = signs.find(([sign]) => source.startsWith(sign)) ?? ["", ""];
      const display = element.classList.contains("display");
      try {
        globalThis.katex.render(source.slice(opener.length, source.length - closer.length), element, {
          displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 200,
        });
        element.classList.add("typeset");
        element.title = source;
      } catch {
        element.textContent = source;
      }
    }
  }

  // Search: words of any case, all of which must be on a page; in a document, the text as it is typed.
  const search = get("search");
  const found = get("found");
  const words = () => search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);

  let ranges = [];
  let at = -1;
  const textsOf = (element) => {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    return nodes;
  };
  const rangesOf = (term) => {
    const all = [];
    for (const element of document.querySelectorAll(isRaw() ? ".raw" : ".rendered")) {
      for (const node of textsOf(element)) {
        const text = node.data.toLowerCase();
        if (text.length !== node.length) continue; // a letter whose lower case is longer
        for (let from = text.indexOf(term); from >= 0; from = text.indexOf(term, from + term.length)) {
          const range = new Range();
          range.setStart(node, from);
          range.setEnd(node, from + term.length);
          all.push(range);
          if (all.length === 10000) return all;
        }
      }
    }
    return all;
  };
  const highlight = (name, list) => {
    if (CSS.highlights) CSS.highlights.set(name, new Highlight(...list));
  };
  const showFound = () => {
    const none = search.value.trim() ? "not found" : "";
    found.textContent = ranges.length ? `${Math.max(at, 0) + 1} of ${ranges.length}` : none;
    highlight("found", ranges);
    highlight("here", at >= 0 ? [ranges[at]] : []);
  };
  const step = (by) => {
    if (!ranges.length) return;
    at = (at + by + ranges.length) % ranges.length;
    showFound();
    ranges[at].startContainer.parentElement.scrollIntoView({ block: "center" });
  };
  function find() {
    if (isIndex) return;
    const term = search.value.trim().toLowerCase();
    ranges = term ? rangesOf(term) : [];
    at = -1;
    showFound();
  }

  let library = null;
  const loaded = () => {
    library ??= [...document.querySelectorAll("script.texts")].map((script) => {
      const link = document.querySelector(`tr[data-key="${CSS.escape(script.dataset.key)}"] a`);
      const texts = JSON.parse(script.textContent).map(([number, text]) => ({ number, text, lower: text.toLowerCase() }));
      return { name: link.textContent, href: link.getAttribute("href"), texts };
    });
    return library;
  };
  const MOST_SHOWN = 200;
  const snippet = (text, lower, terms) => {
    const first = Math.max(lower.indexOf(terms[0]), 0);
    const start = Math.max(first - 70, 0);
    const part = text.slice(start, first + 170).replace(/\s+/g, " ");
    const low = part.toLowerCase();
    const paragraph = document.createElement("p");
    paragraph.append(start ? "…" : "");
    let done = 0;
    while (low.length === part.length) {
      const next = terms.map((term) => [low.indexOf(term, done), term]).filter(([where]) => where >= 0).sort((a, b) => a[0] - b[0])[0];
      if (!next) break;
      const mark = document.createElement("mark");
      mark.textContent = part.slice(next[0], next[0] + next[1].length);
      paragraph.append(part.slice(done, next[0]), mark);
      done = next[0] + next[1].length;
    }
    paragraph.append(part.slice(done), first + 170 < text.length ? "…" : "");
    return paragraph;
  };
  const showPlaces = () => {
    const terms = words();
    const list = get("results").firstElementChild;
    list.replaceChildren();
    get("results").hidden = !terms.length;
    get("list").hidden = terms.length > 0;
    found.textContent = "";
    if (!terms.length) return;
    let count = 0;
    const typed = search.value.trim();
    for (const { name, href, texts } of loaded()) {
      for (const { number, text, lower } of texts) {
        if (!terms.every((term) => lower.includes(term))) continue;
        if (++count > MOST_SHOWN) continue;
        const item = document.createElement("li");
        const link = document.createElement("a");
        const term = lower.includes(typed.toLowerCase()) ? typed : terms[0];
        link.href = `${href}#page-${number}~${encodeURIComponent(term)}`;
        link.textContent = `${name}, page ${number}`;
        item.append(link, snippet(text, lower, terms));
        list.append(item);
      }
    }
    const pagesFound = count === 1 ? "1 page" : `${count} pages`;
    found.textContent = count > MOST_SHOWN ? `${pagesFound}, the first ${MOST_SHOWN} shown` : pagesFound;
  };

  // A server that makes these pages searches all documents.
  const isServed = get("find").dataset.served !== undefined;
  const ask = () => { location.search = search.value.trim() ? `?q=${encodeURIComponent(search.value)}` : ""; };
  let timer = 0;
  search.addEventListener("input", () => {
    if (isServed) return;
    clearTimeout(timer);
    timer = setTimeout(isIndex ? showPlaces : find, 120);
  });
  get("find").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && isServed) {
      event.preventDefault();
      ask();
    } else if (event.key === "Escape" && isServed) {
      search.blur();
      if (location.search) location.search = "";
    } else if (event.key === "Enter" && !isIndex) {
      event.preventDefault();
      step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      showPlaces();
      document.querySelector("#results a")?.focus();
    } else if (event.key === "Escape") {
      search.value = "";
      (isIndex ? showPlaces : find)();
      search.blur();
    }
  });

  // A place that the index found: #page-3~words.
  const arrive = () => {
    const match = /^#(page-\d+)~(.*)$/.exec(location.hash);
    if (!match || isIndex) return;
    const page = get(match[1]);
    try {
      search.value = decodeURIComponent(match[2]);
    } catch {
      return; // not encoded by us
    }
    find();
    at = ranges.findIndex((range) => page?.contains(range.startContainer));
    showFound();
    go(page);
    if (at >= 0) ranges[at].startContainer.parentElement.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", arrive);
  arrive();

  const turnLink = (by) => {
    const links = [...document.querySelectorAll(get("results").hidden ? "#list tbody a" : "#results a")];
    const now = links.indexOf(document.activeElement);
    go(links[Math.min(Math.max(now + by, 0), links.length - 1)]);
  };
  const next = isIndex ? () => turnLink(1) : () => turnPage(1);
  const previous = isIndex ? () => turnLink(-1) : () => turnPage(-1);
  const actions = {
    j: next, ArrowRight: next, k: previous, ArrowLeft: previous,
    n: () => turnToLook(1), p: () => turnToLook(-1),
    "]": () => get("next")?.click(), "[": () => get("previous")?.click(), u: () => get("up")?.click(),
    r: () => raw && turnRaw(), d: turnTheme,
    "/": () => { search.focus(); search.select(); },
    "?": () => help.showModal(),
  };
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || help.open) return;
    if (Object.hasOwn(actions, event.key)) {
      event.preventDefault();
      actions[event.key]();
    }
  });
})();
