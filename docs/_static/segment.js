// The page "Segment your own image": what `course_lib.load("unet-nuclei").predict(image)` does, in the browser.
"use strict";
(() => {
  const LARGEST = 1024; // pixels of a side; a larger image is made smaller first
  const LUMINANCE = [0.2125, 0.7154, 0.0721];
  const page = document.getElementById("segment");
  if (!page) return;
  const at = (name) => document.getElementById(`segment-${name}`);
  const say = (text) => { at("status").textContent = text; };

  // Grey values in 0..1 of the pixels of a canvas.
  const greyOf = ({ data, width, height }) => {
    const grey = new Float32Array(width * height);
    for (let k = 0; k < grey.length; k++) {
      const [red, green, blue] = data.subarray(4 * k, 4 * k + 3);
      grey[k] = red === green && green === blue
        ? red / 255 : (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue) / 255;
    }
    return grey;
  };

  const percentile = (sorted, percent) => {
    const place = (percent / 100) * (sorted.length - 1), low = Math.floor(place);
    return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
  };

  const stretch = (grey) => {
    const sorted = Float32Array.from(grey).sort();
    const low = percentile(sorted, 1), high = percentile(sorted, 99.8), span = high > low ? high - low : 1;
    return grey.map((value) => Math.min(1, Math.max(0, (value - low) / span)));
  };

  // Mirrored back inside, the edge pixel not repeated.
  const reflect = (position, length) => {
    if (length === 1) return 0;
    const period = 2 * (length - 1), inside = position % period;
    return inside >= length ? period - inside : inside;
  };

  // The mean of the class probabilities over the image and its mirror images: (height * width) rows of 3.
  const probabilitiesOf = async (session, grey, width, height, multiple) => {
    const columns = Math.ceil(width / multiple) * multiple, rows = Math.ceil(height / multiple) * multiple;
    const total = new Float32Array(width * height * 3);
    const views = [[false, false], [false, true], [true, true], [true, false]]; // up-down, left-right
    for (const [number, [down, right]] of views.entries()) {
      say(`Predicting, view ${number + 1} of ${views.length} …`);
      await new Promise((resolve) => setTimeout(resolve)); // lets the browser show the line
      const source = (row, column) => (down ? height - 1 - row : row) * width + (right ? width - 1 - column : column);
      const input = new Float32Array(rows * columns);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          input[row * columns + column] = grey[source(reflect(row, height), reflect(column, width))];
        }
      }
      const name = session.inputNames[0];
      const output = await session.run({ [name]: new ort.Tensor("float32", input, [1, rows, columns, 1]) });
      const logits = output[session.outputNames[0]].data;
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const from = 3 * (row * columns + column), to = 3 * source(row, column);
          const top = Math.max(logits[from], logits[from + 1], logits[from + 2]);
          const powers = [0, 1, 2].map((k) => Math.exp(logits[from + k] - top));
          const sum = powers[0] + powers[1] + powers[2];
          for (let k = 0; k < 3; k++) total[to + k] += powers[k] / sum / views.length;
        }
      }
    }
    return total;
  };

  // Neighbours of a pixel that share a side with it.
  const neighbours = (pixel, width, height) => {
    const column = pixel % width, found = [];
    if (pixel >= width) found.push(pixel - width);
    if (column > 0) found.push(pixel - 1);
    if (column < width - 1) found.push(pixel + 1);
    if (pixel < width * (height - 1)) found.push(pixel + width);
    return found;
  };

  // Connected components, numbered from 1.
  const components = (mask, width, height) => {
    const labels = new Int32Array(mask.length);
    let count = 0;
    for (let start = 0; start < mask.length; start++) {
      if (!mask[start] || labels[start]) continue;
      labels[start] = ++count;
      const open = [start];
      while (open.length) {
        for (const next of neighbours(open.pop(), width, height)) {
          if (mask[next] && !labels[next]) { labels[next] = count; open.push(next); }
        }
      }
    }
    return labels;
  };

  const dropSmall = (labels, smallest) => {
    const sizes = [];
    for (const label of labels) sizes[label] = (sizes[label] || 0) + 1;
    const renamed = [0];
    let count = 0;
    for (let label = 1; label < sizes.length; label++) renamed[label] = sizes[label] >= smallest ? ++count : 0;
    return { labels: labels.map((label) => renamed[label]), count };
  };

  // A heap of pixels, the lowest value first and the oldest of equals.
  class Heap {
    constructor() { this.items = []; }
    before(a, b) { return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]); }
    push(item) {
      const items = this.items;
      let k = items.push(item) - 1;
      while (k > 0 && this.before(items[k], items[(k - 1) >> 1])) {
        [items[k], items[(k - 1) >> 1]] = [items[(k - 1) >> 1], items[k]];
        k = (k - 1) >> 1;
      }
    }
    pop() {
      const items = this.items, first = items[0], last = items.pop();
      if (items.length) {
        items[0] = last;
        for (let k = 0; ;) {
          let least = k;
          for (const child of [2 * k + 1, 2 * k + 2]) {
            if (child < items.length && this.before(items[child], items[least])) least = child;
          }
          if (least === k) break;
          [items[k], items[least]] = [items[least], items[k]];
          k = least;
        }
      }
      return first;
    }
  }

  // Seeds grow over the mask, the pixels of lowest height first.
  const watershed = (heights, seeds, mask, width, height) => {
    const labels = seeds.map((label, pixel) => (mask[pixel] ? label : 0)), heap = new Heap();
    let age = 0;
    labels.forEach((label, pixel) => { if (label) heap.push([heights[pixel], 0, pixel]); });
    while (heap.items.length) {
      const pixel = heap.pop()[2];
      for (const next of neighbours(pixel, width, height)) {
        if (!mask[next] || labels[next]) continue;
        labels[next] = labels[pixel];
        heap.push([heights[next], ++age, next]);
      }
    }
    return labels;
  };

  const decode = (probabilities, width, height, thresholds) => {
    const size = width * height, mask = new Uint8Array(size), sure = new Uint8Array(size), heights = new Float32Array(size);
    for (let k = 0; k < size; k++) {
      mask[k] = 1 - probabilities[3 * k] > thresholds.mask_threshold;
      sure[k] = mask[k] && probabilities[3 * k + 1] > thresholds.seed_threshold;
      heights[k] = -probabilities[3 * k + 1];
    }
    const seeds = dropSmall(components(sure, width, height), Math.min(4, thresholds.min_size)).labels;
    return dropSmall(watershed(heights, seeds, mask, width, height), thresholds.min_size);
  };

  // Colours that differ between neighbours in number: the hue turns by the golden angle.
  const colourOf = (label) => {
    const hue = (label * 137.508) % 360, channel = (n) => {
      const k = (n + hue / 30) % 12;
      return 255 * (0.55 - 0.4 * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
    };
    return [channel(0), channel(8), channel(4)];
  };

  const draw = (canvas, width, height, colour) => {
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height);
    for (let k = 0; k < width * height; k++) image.data.set([...colour(k), 255], 4 * k);
    canvas.getContext("2d").putImageData(image, 0, 0);
  };

  let ready = null;
  const start = async () => {
    const answer = await fetch(page.dataset.model);
    if (!answer.ok) throw new Error("this copy of the site was built without the network");
    const model = await answer.json();
    const folder = new URL(page.dataset.model.replace(/[^/]*$/, ""), document.baseURI).href;
    ort.env.wasm.wasmPaths = folder;
    ort.env.wasm.numThreads = 1;
    return { model, session: await ort.InferenceSession.create(folder + model.file) };
  };

  const segment = async (blob) => {
    at("results").hidden = at("save").hidden = true;
    say("Reading the image …");
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const width = Math.round(bitmap.width * scale), height = Math.round(bitmap.height * scale);
    const canvas = at("image");
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0, width, height);
    const grey = stretch(greyOf(context.getImageData(0, 0, width, height)));
    say("Loading the network …");
    const { model, session } = await (ready ||= start());
    const began = performance.now();
    const probabilities = await probabilitiesOf(session, grey, width, height, model.sides_are_multiples_of);
    const { labels, count } = decode(probabilities, width, height, model.thresholds);
    draw(at("mask"), width, height, (k) => (labels[k] ? colourOf(labels[k]) : [0, 0, 0]));
    draw(at("overlay"), width, height, (k) => {
      const value = 255 * grey[k];
      return labels[k] ? colourOf(labels[k]).map((part) => 0.6 * value + 0.4 * part) : [value, value, value];
    });
    at("results").hidden = at("save").hidden = false;
    const export_ = document.createElement("canvas");
    draw(export_, width, height, (k) => [labels[k] & 255, labels[k] >> 8, 0]);
    Object.assign(at("save"), { href: export_.toDataURL("image/png"), download: "labels.png" });
    const smaller = scale < 1 ? ` The image was made smaller, to ${width} × ${height} pixels.` : "";
    say(`${count} objects in ${((performance.now() - began) / 1000).toFixed(1)} s.${smaller}`);
    window.segmentation = { labels, width, height, count }; // for tests, and for the curious
  };

  const run = (blob) => segment(blob).catch((error) => {
    ready = null;
    say(`That did not work: ${error.message}. Try a PNG or JPEG.`);
  });
  at("file").addEventListener("change", (event) => { if (event.target.files[0]) run(event.target.files[0]); });
  at("example").addEventListener("click", async () => run(await (await fetch("_static/segment/example.png")).blob()));
  const drop = at("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("segment-over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) run(event.dataTransfer.files[0]);
    });
  }
})();
