"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const copyOf = (id) => get(id).content.firstElementChild.cloneNode(true);
  let reading = Promise.resolve(); // documents are read one after another

  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const duration = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

  const failure = async (reply) => {
    try {
      return (await reply.json()).error.message;
    } catch {
      return `the server answers with status ${reply.status}`;
    }
  };

  // Asks, and asks again with a key where one is wanted.
  let key = "";
  const ask = async (path, options = {}) => {
    for (;;) {
      const used = key;
      const reply = await fetch(path, { ...options, headers: used ? { authorization: `Bearer ${used}` } : {} });
      if (reply.status !== 401) return reply;
      if (used === key) await wantKey(options.signal); // else another one was given meanwhile
    }
  };
  const waiting = new Set();
  const wantKey = (signal) => {
    const form = get("key-form");
    if (form.hidden) { // several may wait for it, and a person may be typing
      form.hidden = false;
      form.firstElementChild.textContent = key ? "The API key is wrong" : "This server wants its API key";
      get("key").value = "";
      get("key").focus();
    }
    return new Promise((resolve, reject) => {
      waiting.add(resolve);
      signal?.addEventListener("abort", () => { waiting.delete(resolve); reject(signal.reason); });
    });
  };
  get("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = get("key").value.trim();
    get("key-form").hidden = true;
    get("file").focus();
    for (const resolve of waiting) resolve();
    waiting.clear();
  });

  const nameModel = async () => {
    const reply = await ask("v1/models");
    if (reply.ok) get("model").textContent = `, with ${(await reply.json()).data[0].id}`;
  };

  // A stream's lines, each as soon as it is there.
  async function* linesOf(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let pieces = [];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const [first, ...others] = value.split("\n");
      pieces.push(first);
      for (const other of others) {
        yield JSON.parse(pieces.join(""));
        pieces = [other];
      }
    }
  }

  const noteOf = (page) => {
    if (page.status === "fallback") return `The model gave no good answer; this is the file's own text (${page.error ?? "no reason is known"}).`;
    if (page.status === "blank") return "This page is blank.";
    if (page.low_coverage) return "Text that the file has is missing here: compare it with the page.";
    if (page.attempts > 1) return `Read at attempt ${page.attempts}.`;
    return "";
  };

  class Shown {
    constructor(file) {
      this.file = file;
      this.name = file.name || "pasted picture";
      this.ranges = get("pages").value.trim();
      this.element = copyOf("document");
      this.part = (selector) => this.element.querySelector(selector);
      this.part("h2").textContent = this.name;
      this.part(".copy").addEventListener("click", () => this.copy());
      this.part(".download").addEventListener("click", () => this.download());
      this.part(".stop").addEventListener("click", () => this.stopping.abort());
      this.part(".again").addEventListener("click", () => this.begin());
      get("documents").prepend(this.element);
      this.begin();
    }

    begin() {
      const stopping = (this.stopping = new AbortController());
      stopping.signal.addEventListener("abort", () => this.end("Stopped"));
      this.texts = new Map();
      this.numbers = [];
      this.part(".pages").replaceChildren();
      this.part(".error").hidden = true;
      this.part("progress").removeAttribute("value");
      this.part(".copy").disabled = this.part(".download").disabled = true;
      this.isBusy(true);
      this.say("Waits for its turn.");
      reading = reading.then(() => stopping.signal.aborted || this.read(stopping.signal));
    }

    isBusy(busy) {
      this.part(".stop").hidden = !busy;
      this.part(".again").hidden = busy;
    }

    say(text) { this.part(".state").textContent = text; }

    fail(text) {
      this.part(".error").textContent = text;
      this.part(".error").hidden = false;
    }

    end(how) {
      this.say(this.texts.size ? `${how} after ${counted(this.texts.size, "page")}.` : `${how} before the first page.`);
      if (this.numbers.length === 0) this.part("progress").value = 0;
      this.isBusy(false);
    }

    async read(signal) {
      try {
        this.say("Sending it…");
        await this.follow(await this.send(signal));
        this.isBusy(false);
      } catch (error) {
        if (signal.aborted) return;
        this.fail(error instanceof TypeError ? "The connection to the server is lost." : error.message);
        this.end("Ended");
      }
    }

    async send(signal) {
      const form = new FormData();
      form.append("markdown", "false");
      if (this.ranges) form.append("pages", this.ranges);
      form.append("file", this.file, this.name);
      const reply = await ask("v1/ocr", { method: "POST", body: form, signal });
      if (!reply.ok) throw new Error(await failure(reply));
      return reply;
    }

    async follow(reply) {
      this.started = performance.now();
      let isWhole = false;
      for await (const line of linesOf(reply.body)) {
        if (line.type === "document") this.expect(line.pages);
        else if (line.type === "page") this.add(line);
        else if (line.type === "error") throw new Error(line.error.message);
        else if (line.type === "summary") isWhole = true;
      }
      if (!isWhole) throw new Error("The connection to the server is lost.");
      this.say(`${counted(this.numbers.length, "page")} in ${duration(this.seconds)}.`);
    }

    get seconds() { return (performance.now() - this.started) / 1000; }

    expect(numbers) {
      this.numbers = numbers;
      this.part("progress").max = numbers.length;
      this.part("progress").value = 0;
      this.say(`Reading ${counted(numbers.length, "page")}…`);
    }

    add(page) {
      const section = copyOf("page");
      section.dataset.number = page.page_number;
      section.querySelector("h3").textContent = `Page ${page.page_number}`;
      const note = section.querySelector(".note");
      note.textContent = noteOf(page);
      note.hidden = !note.textContent;
      note.classList.toggle("warning", page.status === "fallback" || page.low_coverage);
      const text = section.querySelector("pre");
      if (page.text === null) text.remove();
      else text.textContent = page.text;
      text.setAttribute("aria-label", `Text of page ${page.page_number}`);
      const after = [...this.part(".pages").children].find((each) => Number(each.dataset.number) > page.page_number);
      this.part(".pages").insertBefore(section, after ?? null);
      this.texts.set(page.page_number, page.text);
      this.part(".copy").disabled = this.part(".download").disabled = false;
      this.tell();
    }

    tell() {
      const done = this.texts.size;
      const left = this.numbers.length - done;
      this.part("progress").value = done;
      const time = done > 1 && left ? `, about ${duration((this.seconds / done) * left)} left` : "";
      this.say(`${done} of ${counted(this.numbers.length, "page")}${time}`);
    }

    // As the server's own markdown has it: pages in their order, each but the last with a line end.
    get markdown() {
      const last = this.numbers.length - 1;
      const texts = this.numbers.map((number, at) => [this.texts.get(number) ?? null, at]);
      return texts.map(([text, at]) => (text === null ? "" : text + (at < last ? "\n" : ""))).join("");
    }

    async copy() {
      try {
        await navigator.clipboard.writeText(this.markdown);
      } catch { // only safe origins have a clipboard; http://name is none
        const field = document.createElement("textarea");
        field.value = this.markdown;
        document.body.append(field);
        field.select();
        document.execCommand("copy");
        field.remove();
        this.part(".copy").focus();
      }
      this.part(".copy").textContent = "Copied";
      setTimeout(() => { this.part(".copy").textContent = "Copy"; }, 2000);
    }

    download() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([this.markdown], { type: "text/markdown" }));
      link.download = `${this.name.replace(/\.[^.]+$/, "")}.md`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    }
  }

  const take = (files) => { for (const file of files) new Shown(file); };
  get("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => take(event.clipboardData.files));
  addEventListener("beforeunload", (event) => {
    if (document.querySelector(".stop:not([hidden])")) event.preventDefault();
  });
  nameModel().catch(() => {});
})();
