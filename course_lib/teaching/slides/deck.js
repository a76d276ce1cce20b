"use strict";
// Shows the slides of the page one at a time, each arranged so that it fits.
(() => {
  const WIDTH = 1280, HEIGHT = 720, INSIDE = WIDTH - 2 * 52, BOTTOM = 46, GAP = 36, BETWEEN = 15;  // as in deck.css
  const SIZES = [1, 0.93, 0.86, 0.79, 0.72, 0.65];      // of the text: from 26 to 17 pixels, of code from 19 to 12
  const SHARES = [0.36, 0.43, 0.5, 0.57, 0.64];         // of the width, for the left one of two columns
  const SMALLEST_IMAGE = 0.55, LARGEST_IMAGE = 1.2, LARGEST_IN_TALK = 2.2;  // shown width by its own

  const main = document.querySelector("main");
  const slides = [...main.querySelectorAll(".slide")];
  const arranged = new Set();
  let at = 0, step = 0, typed = "", sheet = null, speaker = null, opened = 0, remembering = 0;

  // --- How a slide is arranged ---

  const kind = (block) => block.dataset.kind;
  const zoom = () => main.getBoundingClientRect().width / WIDTH;
  const size = (element, side) => element.getBoundingClientRect()[side] / zoom();

  // What the blocks of a slide need: `heights(width, letters)` of each at a width and text size, read when first asked for,
  // so that arrangements can be compared by sums; the width that code and tables would like to have; the room there is.
  function measure(slide, body, blocks) {
    const known = new Map();
    const heights = (width, letters) => {
      const key = `${width} ${letters}`;
      if (!known.has(key)) {
        body.style.width = `${width}px`;
        slide.style.setProperty("--s", letters);
        known.set(key, blocks.map((block) => size(block, "height")));
      }
      return known.get(key);
    };
    body.classList.add("unbroken");
    const liked = blocks.map((block) => block.querySelector("pre, table")).map((wide) => (wide ? size(wide, "width") : 0));
    body.classList.remove("unbroken");
    const top = (body.getBoundingClientRect().top - slide.getBoundingClientRect().top) / zoom();
    return { heights, liked, room: HEIGHT - BOTTOM - top };
  }

  // The widths of two columns.
  function pair(share) {
    const left = Math.round(share * (INSIDE - GAP));
    return [left, INSIDE - GAP - left];
  }

  // One column: whether its blocks fit, how large its images become in the room that the text leaves, what is bad in it.
  function column(blocks, numbers, width, letters, measured, room) {
    const heights = measured.heights(width, letters);
    const images = new Map();
    let left = room - Math.max(0, numbers.length - 1) * BETWEEN * letters, faults = 0, wanted = 0;
    for (const number of numbers) {
      if (kind(blocks[number]) === "image") {
        const image = blocks[number].querySelector("img");
        const own = { width: +image.getAttribute("width"), height: +image.getAttribute("height") };
        const factor = Math.min(image.closest(".talk") ? LARGEST_IN_TALK : LARGEST_IMAGE, width / own.width);
        images.set(number, { own, factor });
        wanted += own.height * factor;
      } else {
        left -= heights[number];
        if (measured.liked[number] * letters > width + 1) faults += kind(blocks[number]) === "output" ? 0.4 : 0.2;
      }
    }
    const squeeze = wanted ? Math.min(1, left / wanted) : 1;
    for (const image of images.values()) image.factor *= squeeze;
    const smallest = Math.min(LARGEST_IMAGE, ...[...images.values()].map((image) => image.factor));
    const used = room - left + wanted * squeeze;
    return { numbers, width, images, smallest, faults, used, fits: left >= 0 && smallest >= SMALLEST_IMAGE };
  }

  // What is bad about going on in another column after a block.
  function parting(before, after) {
    let faults = 0.06;
    if (/^H\d$/.test(before.firstElementChild?.tagName) || /:\s*$/.test(before.textContent)) faults += 0.3;
    if (before.dataset.cell === after.dataset.cell && kind(after) === "text") faults += 0.08;
    return faults;
  }

  // The best arrangement that fits, or null: all in one column, or two columns side by side, with text over and under them
  // where that is better; and how large the text is. The blocks keep their order.
  function best(blocks, measured) {
    const all = blocks.map((_, number) => number);
    const drawn = blocks.map((block) => kind(block) === "image");
    const words = drawn.includes(false);
    let chosen = null;
    const consider = (rows, letters, faults) => {
      const columns = rows.flat();
      if (!columns.every((one) => one.fits)) return;
      const images = Math.min(1, ...columns.map((one) => one.smallest));
      const worst = Math.min(words ? letters : 1, images);
      const score = 1.5 * worst + 0.9 * letters + 0.6 * images - faults - columns.reduce((sum, one) => sum + one.faults, 0);
      if (!chosen || score > chosen.score) chosen = { rows, letters, score };
    };
    const sizes = blocks[0].closest(".talk") ? SIZES.slice(0, 2) : SIZES;  // what is projected stays large
    for (const letters of words ? sizes : [1]) {
      if (chosen && chosen.score >= 2.4 * letters + 0.6) break;  // smaller text cannot be better
      const between = BETWEEN * letters;
      consider([[column(blocks, all, INSIDE, letters, measured, measured.room)]], letters, 0);
      for (let first = 0; first < blocks.length - 1 && !drawn.slice(0, first).includes(true); first++) {
        const over = column(blocks, all.slice(0, first), INSIDE, letters, measured, measured.room);
        for (let last = blocks.length; last > first + 1 && !drawn.slice(last).includes(true); last--) {
          const under = column(blocks, all.slice(last), INSIDE, letters, measured, measured.room);
          const taken = (first ? over.used + between : 0) + (last < blocks.length ? under.used + between : 0);
          const room = measured.room - taken;
          if (room < 60) continue;
          for (let cut = first + 1; cut < last; cut++) {
            const faults = parting(blocks[cut - 1], blocks[cut]) + 0.03 * (first > 0) + 0.03 * (last < blocks.length);
            for (const share of SHARES) {
              const [left, right] = pair(share);
              const columns = [
                column(blocks, all.slice(first, cut), left, letters, measured, room),
                column(blocks, all.slice(cut, last), right, letters, measured, room),
              ];
              const rows = [[over], columns, [under]].filter((row) => row.some((one) => one.numbers.length));
              const uneven = Math.abs(columns[0].used - columns[1].used) / measured.room;
              consider(rows, letters, faults + 0.12 * uneven);
            }
          }
        }
      }
    }
    return chosen;
  }

  // Where nothing fits at a readable size, all of it is shown nevertheless, as small as need be.
  function crowded(blocks, measured) {
    const letters = SIZES.at(-1);
    const one = column(blocks, blocks.map((_, number) => number), INSIDE, letters, measured, measured.room);
    for (const image of one.images.values()) {
      const room = blocks.length > 1 ? (0.5 * measured.room) / one.images.size : measured.room;  // alone: a poster
      image.factor = Math.min(1, INSIDE / image.own.width, room / image.own.height);
    }
    return { rows: [[one]], letters };
  }

  // A widget's frames: the sliders say which one is seen.
  for (const frames of main.querySelectorAll(".frames")) {
    const sliders = [...frames.querySelectorAll("input")];
    frames.addEventListener("input", () => {
      const at = sliders.map((slider) => slider.value).join(" ");
      for (const image of frames.querySelectorAll("img")) image.hidden = image.dataset.at !== at;
    });
  }

  function arrange(slide) {
    if (arranged.has(slide)) return;
    arranged.add(slide);
    const body = slide.querySelector(".body");
    const blocks = [...body.children];
    if (!blocks.length) return;
    slide.classList.add("measuring");
    const measured = measure(slide, body, blocks);
    const chosen = best(blocks, measured) ?? crowded(blocks, measured);
    const rows = chosen.rows.map((columns) => {
      const row = box("row");
      for (const one of columns) {
        const element = box("column");
        element.style.width = `${one.width}px`;
        element.append(...one.numbers.map((number) => blocks[number]));
        for (const [number, image] of one.images) {
          blocks[number].querySelector("img").style.width = `${Math.floor(image.own.width * image.factor)}px`;
        }
        row.append(element);
      }
      return row;
    });
    body.style.width = "";
    body.replaceChildren(...rows);
    slide.classList.add("arranged");
    // The sums may be off by a little, and crowded slides by a lot.
    let letters = chosen.letters;
    slide.style.setProperty("--s", letters);
    for (let tries = 0; tries < 60 && size(body, "height") > measured.room + 0.5; tries++) {
      letters *= 0.97;
      slide.style.setProperty("--s", letters);
    }
    slide.classList.remove("measuring");
  }

  function box(name) {
    const element = document.createElement("div");
    element.className = name;
    return element;
  }

  // --- Going through them ---

  const steps = (slide) => Math.max(0, ...[...slide.querySelectorAll("[data-step]")].map((block) => +block.dataset.step));

  function show(number, upTo) {
    at = Math.min(Math.max(number, 0), slides.length - 1);
    step = Math.min(Math.max(upTo, 0), steps(slides[at]));
    arrange(slides[at]);
    slides.forEach((slide, place) => slide.classList.toggle("current", place === at));
    for (const block of slides[at].querySelectorAll("[data-step]")) {
      block.classList.toggle("ahead", +block.dataset.step > step);
    }
    document.getElementById("place").textContent = `${at + 1} / ${slides.length}`;
    const { section } = slides[at].dataset;
    document.getElementById("section").textContent = section === document.title ? "" : section;
    document.querySelector(".done").style.width = `${(100 * (at + 1)) / slides.length}%`;
    clearTimeout(remembering);
    remembering = setTimeout(() => history.replaceState(null, "", `#${at + 1}`), 200);  // browsers refuse it too often
    tell();
  }

  const onward = () => (step < steps(slides[at]) ? show(at, step + 1) : at + 1 < slides.length && show(at + 1, 0));
  const back = () => (step > 0 ? show(at, step - 1) : at > 0 && show(at - 1, Infinity));

  // To the next slide that begins a section, or to the one before.
  function section(direction) {
    let number = at + direction;
    while (number > 0 && number < slides.length - 1 && !slides[number].classList.contains("begins")) number += direction;
    show(number, 0);
  }

  // --- Sheets that lie over a slide: its code, the list of slides, the keys ---

  function lay(name, content, below = false) {
    const same = sheet?.dataset.name === name;
    sheet?.remove();
    sheet = null;
    if (same || !content) return;
    sheet = document.createElement("div");
    sheet.className = below ? "sheet below" : "sheet";
    sheet.dataset.name = name;
    sheet.append(...content);
    main.append(sheet);
  }

  function heading(text) {
    const element = document.createElement("h2");
    element.textContent = text;
    return element;
  }

  function code() {
    const hidden = slides[at].querySelector(".sources");
    lay("code", [heading("The code of this slide"), ...[...hidden.children].map((one) => one.cloneNode(true))]);
  }

  function contents() {
    const list = document.createElement("ol");
    slides.forEach((slide, number) => {
      const entry = document.createElement("li"), button = document.createElement("button");
      button.textContent = slide.dataset.title;
      button.className = slide.classList.contains("begins") ? "" : "inner";
      button.addEventListener("click", () => (lay("contents"), show(number, 0)));
      entry.append(button);
      list.append(entry);
    });
    lay("contents", [heading("Slides"), list]);
    list.children[at].firstChild.focus();
  }

  function help() {
    const list = document.createElement("dl");
    for (const [key, does] of [
      ["→  space  PageDown", "one step on"],
      ["←  backspace  PageUp", "one step back"],
      ["↓  ↑", "the next slide with all its steps; the one before"],
      ["]  [", "the next section; the one before"],
      ["Home  End", "the first slide; the last"],
      ["12 Enter", "slide 12"],
      ["s", "speaker notes, in a second window where the browser allows it"],
      ["c", "the code that this slide does not show"],
      ["o", "the list of slides"],
      ["f", "full screen"],
      ["b", "a dark screen, until the next key"],
      ["Ctrl-P", "print, or save as PDF: a page for each slide"],
    ]) {
      const term = document.createElement("dt"), meaning = document.createElement("dd");
      term.textContent = key;
      meaning.textContent = does;
      list.append(term, meaning);
    }
    lay("help", [heading("Keys"), list]);
  }

  // --- Speaker notes ---

  const notesOf = (slide) => [...slide.querySelector(".notes").children].map((one) => one.cloneNode(true));

  function tell() {
    if (sheet?.dataset.name === "notes") {
      lay("notes");
      notes();
    } else if (sheet) {
      lay(sheet.dataset.name);
    }
    if (!speaker || speaker.closed) return;
    const page = speaker.document, next = slides[at + 1];
    page.getElementById("now").textContent = `${at + 1} / ${slides.length}  ${slides[at].dataset.title}`;
    page.getElementById("next").textContent = next ? `next: ${next.dataset.title}` : "the last slide";
    const said = notesOf(slides[at]);
    page.getElementById("said").replaceChildren(...(said.length ? said.map((one) => page.importNode(one, true)) : ["No notes."]));
  }

  // In the slide's own window, for a browser that opens no second one.
  function notes() {
    const said = notesOf(slides[at]);
    lay("notes", [heading("Speaker notes"), ...(said.length ? said : ["No notes on this slide."])], true);
  }

  function speak() {
    if (speaker && !speaker.closed) return speaker.focus();
    speaker = window.open("", "", "popup,width=720,height=560");
    if (!speaker) return notes();
    const page = speaker.document, style = page.createElement("style");
    page.title = `Notes: ${document.title}`;
    style.textContent =
      "body { margin: 24px; font: 22px/1.45 sans-serif; color: #1b1f24; } #now { font-weight: 600; } #next, #time { color: #5a6270; font-size: 18px; }";
    page.head.append(style);
    for (const name of ["now", "next", "said", "time"]) {
      const part = page.createElement("div");
      part.id = name;
      page.body.append(part);
    }
    opened = Date.now();
    const clock = setInterval(() => {
      if (!speaker || speaker.closed) return clearInterval(clock);
      const seconds = Math.floor((Date.now() - opened) / 1000);
      page.getElementById("time").textContent =
        `${new Date().toLocaleTimeString()}, ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} since the notes were opened`;
    }, 500);
    page.addEventListener("keydown", press);
    tell();
  }

  // --- Keys, clicks, the window ---

  const KEYS = {
    ArrowRight: onward, " ": onward, PageDown: onward, Enter: onward,
    ArrowLeft: back, Backspace: back, PageUp: back,
    ArrowDown: () => (at + 1 < slides.length || step < steps(slides[at])) && show(Math.min(at + 1, slides.length - 1), Infinity),
    ArrowUp: () => at > 0 && show(at - 1, Infinity),
    "]": () => section(1), "[": () => section(-1),
    Home: () => show(0, 0), End: () => show(slides.length - 1, Infinity),
    s: speak, c: () => slides[at].querySelector(".sources") && code(), o: contents, "?": help, h: help,
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
    Escape: () => lay(""),
  };

  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches?.("input") && /^(Arrow|Home|End|Page)/.test(event.key)) return;  // they move the slider
    const dark = document.body.classList;
    if (dark.contains("dark") || event.key === "b") {  // any key ends the dark, and does nothing else
      event.preventDefault();
      return void dark.toggle("dark");
    }
    if (event.key === "Enter" && event.target.tagName === "BUTTON") return;
    if (/^\d$/.test(event.key)) return void (typed += event.key);
    const number = event.key === "Enter" ? parseInt(typed, 10) : NaN;
    typed = "";
    if (number) show(number - 1, 0);
    else if (KEYS[event.key]) KEYS[event.key]();
    else return;
    event.preventDefault();
  }

  function fit() {
    const factor = Math.min(innerWidth / WIDTH, innerHeight / HEIGHT);
    const [x, y] = [(innerWidth - WIDTH * factor) / 2, (innerHeight - HEIGHT * factor) / 2];
    main.style.transform = `translate(${x}px, ${y}px) scale(${factor})`;
  }

  document.addEventListener("keydown", press);
  main.addEventListener("click", (event) => {
    if (event.target.closest("a, .sheet, .frames") || String(getSelection())) return;
    event.clientX < innerWidth / 3 ? back() : onward();
  });
  let touched = 0;
  main.addEventListener("touchstart", (event) => (touched = event.changedTouches[0].clientX), { passive: true });
  main.addEventListener("touchend", (event) => {
    const moved = event.changedTouches[0].clientX - touched;
    if (Math.abs(moved) > 60) moved < 0 ? onward() : back();
  });
  addEventListener("resize", fit);
  addEventListener("hashchange", () => show((parseInt(location.hash.slice(1), 10) || 1) - 1, 0));
  addEventListener("beforeprint", () => slides.forEach(arrange));
  document.body.classList.add("running");
  fit();
  show((parseInt(location.hash.slice(1), 10) || 1) - 1, 0);
})();
