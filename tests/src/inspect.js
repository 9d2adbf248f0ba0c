// What a reader would stumble over in this page. A function body: its argument is the width
// in CSS pixels for which the page was laid out, its result what `browser.rs` calls an
// `Inspection`. The view is as high as the page, so every point of it can be asked for.
"use strict";

const asked_width = arguments[0];

const is_print = matchMedia("print").matches;

/** Smallest text, in CSS pixels as they appear: on a phone at arm's length, and 7 points on
    paper, as books set their notes. */
const SMALLEST = is_print ? 9.33 : 11;
/** Contrast of text with what is behind it (WCAG 2.2, 1.4.3, level AA for text of any size). */
const CONTRAST = 4.5;
/** Edges are rounded to device pixels, so they may meet by as much. */
const EDGE = 1.5;
/** Part of a line's box, at its upper and lower end each, that the glyphs of labels leave free. */
const LEADING = 0.18;
/** Labels may come so near, in CSS pixels, that they overlap by as much. */
const TOUCH = 1;
/** A drawing is a plot from this size; smaller ones are signs within text. */
const PLOT = { width: 120, height: 60 };
/** A label is struck through if a line that stands out by as much (contrast) runs through so
    many of so many points along its middle. */
const STRIKE = { contrast: 1.6, hits: 3, points: 11 };
/** Halos of labels count as their background from this width in CSS pixels. */
const HALO = 1.5;
/** Faults of one kind that are told one by one. */
const TOLD = 8;

const faults = [];
const told = new Map();

function fault(kind, what) {
  const n = (told.get(kind) ?? 0) + 1;
  told.set(kind, n);
  if (n <= TOLD) faults.push({ kind, what });
}

const round = (x) => Math.round(10 * x) / 10;
const quote = (text) => {
  const short = text.trim().replace(/\s+/g, " ");
  return "`" + (short.length > 40 ? short.slice(0, 40) + "…" : short) + "`";
};

// Colors, as [red, green, blue, alpha] of 0 to 1.
const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const known = new Map();

function color(css) {
  if (!known.has(css)) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = "rgba(0, 0, 0, 0)";
    pixel.fillStyle = css;
    pixel.fillRect(0, 0, 1, 1);
    known.set(css, Array.from(pixel.getImageData(0, 0, 1, 1).data, (value) => value / 255));
  }
  return known.get(css);
}

const over = (upper, lower) => {
  const alpha = upper[3];
  return [0, 1, 2].map((i) => upper[i] * alpha + lower[i] * (1 - alpha)).concat(1);
};
const faded = (rgba, opacity) => [...rgba.slice(0, 3), rgba[3] * opacity];

function luminance(rgb) {
  const linear = rgb.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** What the browser draws where nobody says anything. */
const canvas_color = (() => {
  const probe = document.createElement("i");
  probe.style.cssText = "position:absolute;background-color:Canvas";
  document.body.append(probe);
  const found = color(getComputedStyle(probe).backgroundColor);
  probe.remove();
  return found;
})();

function opacity(element) {
  let product = 1;
  for (let at = element; at; at = at.parentElement) product *= +getComputedStyle(at).opacity;
  return product;
}

const is_drawn = (element) => element instanceof SVGElement && !(element instanceof SVGSVGElement);

/** Whether a drawn shape has a point of the screen in its area, or in its outline. */
function holds(shape, what, x, y) {
  const matrix = shape.getScreenCTM();
  if (!matrix) return false;
  const at = new DOMPoint(x, y).matrixTransform(matrix.inverse());
  return what === "fill" ? shape.isPointInFill(at) : shape.isPointInStroke(at);
}

/** What an element paints at a point behind whatever stands on it, but for outlines. */
function paint(element, x, y) {
  const style = getComputedStyle(element);
  if (!is_drawn(element)) return faded(color(style.backgroundColor), opacity(element));
  const is_area = element instanceof SVGGeometryElement && !(element instanceof SVGLineElement);
  if (!is_area || style.fill === "none" || style.fill.startsWith("url")) return [0, 0, 0, 0];
  if (!holds(element, "fill", x, y)) return [0, 0, 0, 0];
  return faded(color(style.fill), opacity(element) * +style.fillOpacity);
}

/** What outlines and lines paint at a point; nothing if none runs through it. */
function outline(elements, x, y) {
  for (const element of elements) {
    if (!(element instanceof SVGGeometryElement)) continue;
    const style = getComputedStyle(element);
    if (style.stroke === "none" || style.stroke.startsWith("url")) continue;
    if (!holds(element, "stroke", x, y)) continue;
    return faded(color(style.stroke), opacity(element) * +style.strokeOpacity);
  }
  return [0, 0, 0, 0];
}

/** The color behind a text at a point, and whether something lies upon it. */
function behind(element, x, y) {
  const stack = document.elementsFromPoint(x, y);
  const at = stack.findIndex((found) => found === element || element.contains(found));
  const above = at < 0 ? [] : stack.slice(0, at);
  const is_covered = above.some((found) => paint(found, x, y)[3] > 0.2);
  const below = at < 0 ? ancestors(element) : stack.slice(at);
  let layers = [];
  for (const layer of below) {
    const painted = paint(layer, x, y);
    if (layer instanceof SVGTextContentElement || painted[3] === 0) continue;
    layers.push(painted);
    if (painted[3] === 1) break;
  }
  layers.push(canvas_color);
  return { color: layers.reduceRight((lower, upper) => over(upper, lower)), is_covered };
}

function* ancestors(element) {
  for (let at = element; at; at = at.parentElement) yield at;
}

function scale(element) {
  if (!is_drawn(element)) return 1;
  const matrix = element.getScreenCTM();
  return Math.sqrt(Math.abs(matrix.a * matrix.d - matrix.b * matrix.c));
}

/** Whether a box is there for those who listen, and for no one else. */
const is_hidden_box = (element) =>
  [...ancestors(element)].some((at) => {
    const box = at.getBoundingClientRect();
    return getComputedStyle(at).overflow !== "visible" && box.width <= 1 && box.height <= 1;
  });

function check_text(node, element, box) {
  const style = getComputedStyle(element);
  const text = node.data;
  const size = parseFloat(style.fontSize) * scale(element);
  if (size < SMALLEST - 0.05) fault("tiny", `${quote(text)} has ${round(size)} px`);

  const is_label = is_drawn(element);
  const found = behind(element, box.x + box.width / 2, box.y + box.height / 2);
  if (found.is_covered) fault("covered", `${quote(text)} lies under something else`);
  let ground = found.color;
  const has_outline = is_label && style.stroke !== "none" && style.paintOrder.startsWith("stroke");
  const has_halo = has_outline && parseFloat(style.strokeWidth) * scale(element) >= HALO;
  if (has_halo) ground = over(faded(color(style.stroke), +style.strokeOpacity), ground);
  if (is_label && is_struck(element, box, ground, has_halo)) {
    fault("struck", `a line runs through ${quote(text)}`);
  }
  const written = is_label
    ? faded(color(style.fill), +style.fillOpacity)
    : color(style.webkitTextFillColor || style.color);
  const ratio = contrast(over(faded(written, opacity(element)), ground), ground);
  if (ratio < CONTRAST) fault("contrast", `${quote(text)} has ${round(ratio)}:1`);
  check_clipped(text, element, box);
}

/** Whether a line runs along a label: above it, or below it where no halo hides the line. */
function is_struck(element, box, ground, has_halo) {
  let hits = 0;
  for (let i = 0; i < STRIKE.points; i++) {
    const along = (i + 0.5) / STRIKE.points;
    const is_upright = box.height > box.width;
    const x = box.x + box.width * (is_upright ? 0.5 : along);
    const y = box.y + box.height * (is_upright ? along : 0.5);
    const stack = document.elementsFromPoint(x, y);
    const at = stack.indexOf(element);
    const painted = outline(has_halo && at >= 0 ? stack.slice(0, at) : stack, x, y);
    if (contrast(over(painted, ground), ground) >= STRIKE.contrast) hits += 1;
  }
  return hits >= STRIKE.hits;
}

/** Whether some ancestor cuts a text off, or the page's left edge does. */
function check_clipped(text, element, box) {
  if (box.left < -EDGE || box.top + scrollY < -EDGE) {
    fault("clipped", `${quote(text)} begins outside of the page`);
  }
  for (const at of ancestors(element)) {
    if (at === document.body || at === document.documentElement || is_drawn(at)) continue;
    const style = getComputedStyle(at);
    const cuts = (overflow) =>
      overflow === "hidden" || overflow === "clip" || (is_print && overflow !== "visible");
    const frame = at.getBoundingClientRect();
    const beside = Math.max(frame.left - box.left, box.right - frame.right);
    const beyond = Math.max(frame.top - box.top, box.bottom - frame.bottom);
    if ((cuts(style.overflowX) && beside > EDGE) || (cuts(style.overflowY) && beyond > EDGE)) {
      fault("clipped", `${quote(text)} is cut by <${at.localName}> by ${round(Math.max(beside, beyond))} px`);
      return;
    }
  }
}

/** A label's corners on the screen, without the leading of its line. */
function corners(element) {
  const box = element.getBBox();
  const free = LEADING * box.height;
  const matrix = element.getScreenCTM();
  const [left, right] = [box.x, box.x + box.width];
  const [top, bottom] = [box.y + free, box.y + box.height - free];
  return [[left, top], [right, top], [right, bottom], [left, bottom]].map(
    ([x, y]) => new DOMPoint(x, y).matrixTransform(matrix));
}

/** How deep two convex shapes lie in each other, in pixels: the least over the axes. */
function depth(a, b) {
  let least = Infinity;
  for (const shape of [a, b]) {
    for (let i = 0; i < 2; i++) {
      const [from, to] = [shape[i], shape[i + 1]];
      const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
      const axis = [(to.x - from.x) / length, (to.y - from.y) / length];
      const range = (points) => {
        const along = points.map((point) => point.x * axis[0] + point.y * axis[1]);
        return [Math.min(...along), Math.max(...along)];
      };
      const [p, q] = [range(a), range(b)];
      least = Math.min(least, Math.min(p[1], q[1]) - Math.max(p[0], q[0]));
    }
  }
  return least;
}

function check_labels(name, labels) {
  const shapes = labels.map(corners);
  for (let i = 0; i < labels.length; i++) {
    for (let j = 0; j < i; j++) {
      if (labels[i].contains(labels[j]) || labels[j].contains(labels[i])) continue;
      const by = depth(shapes[i], shapes[j]);
      if (by > TOUCH) {
        const both = `${quote(labels[j].textContent)} and ${quote(labels[i].textContent)}`;
        fault("overlap", `${both} in ${quote(name)}, by ${round(by)} px`);
      }
    }
  }
}

/** Whether everything that is drawn lies within the drawing. */
function check_frame(name, svg, parts) {
  const frame = svg.getBoundingClientRect();
  for (const part of parts) {
    const box = part.getBoundingClientRect();
    const by = Math.max(frame.left - box.left, box.right - frame.right,
                        frame.top - box.top, box.bottom - frame.bottom);
    if (by > EDGE && !part.closest("[clip-path]")) {
      const what = part.textContent.trim() ? quote(part.textContent) : `<${part.localName}>`;
      fault("clipped", `${what} leaves ${quote(name)} by ${round(by)} px`);
    }
  }
}

const is_visible = (element) =>
  element.checkVisibility({ opacityProperty: true, visibilityProperty: true });

function check_svg(svg, labels) {
  const frame = svg.getBoundingClientRect();
  const title = svg.querySelector(":scope > title");
  const name = svg.getAttribute("aria-label") ?? title?.textContent ?? "";
  const is_part = (part) => !part.closest("defs, clipPath, mask, marker, symbol, pattern");
  const shapes = [...svg.querySelectorAll("path, rect, circle, ellipse, line, polyline, polygon, use, image")]
    .filter((part) => is_part(part) && is_visible(part));
  check_frame(name, svg, [...shapes, ...labels]);
  check_labels(name, labels);
  if (frame.width < PLOT.width || frame.height < PLOT.height) return null;
  const drawn = shapes.filter((shape) => {
    const box = shape.getBoundingClientRect();
    return box.width > 0 || box.height > 0;
  });
  if (!name) fault("unnamed", `a drawing with ${drawn.length} shapes says nothing to a screen reader`);
  if (drawn.length === 0) fault("empty", `nothing is drawn in ${quote(name)}`);
  return { name, width: frame.width, height: frame.height, n_shapes: drawn.length };
}

function check_images() {
  for (const image of document.images) {
    const name = image.getAttribute("alt");
    if (name === null) fault("unnamed", "a picture without a description");
    if (image.naturalWidth === 0) fault("empty", `the picture ${quote(name ?? "")} shows nothing`);
  }
}

// What is folded away has to be legible as well.
for (const details of document.querySelectorAll("details")) details.open = true;
// So that every part is found at the points where it lies.
for (const part of document.querySelectorAll("svg *")) part.style.pointerEvents = "visiblePainted";

const root = document.documentElement;
if (root.clientWidth !== asked_width) {
  fault("overflow", `the page is laid out for ${root.clientWidth} px instead of ${asked_width} px`);
}
if (root.scrollWidth > asked_width) {
  fault("overflow", `the page is ${root.scrollWidth} px wide in a view of ${asked_width} px`);
}

let n_texts = 0;
const labels = new Map();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode;
  const element = node.parentElement;
  if (!node.data.trim() || !is_visible(element) || is_hidden_box(element)) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  const box = [...range.getClientRects()].find((rect) => rect.width > 0 && rect.height > 0);
  if (!box) continue;
  n_texts += 1;
  check_text(node, element, box);
  if (is_drawn(element)) {
    const svg = element.ownerSVGElement;
    labels.set(svg, [...(labels.get(svg) ?? []), element]);
  }
}
const drawings = [...document.querySelectorAll("svg")]
  .filter((svg) => !svg.ownerSVGElement && is_visible(svg));
const plots = drawings
  .map((svg) => check_svg(svg, labels.get(svg) ?? []))
  .filter((plot) => plot !== null);
check_images();

for (const [kind, n] of told) {
  if (n > TOLD) faults.push({ kind, what: `and ${n - TOLD} more` });
}
return { plots, n_texts, faults };
