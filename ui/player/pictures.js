// What the model was shown: the prompt's pictures under their grid of image tokens, and what they cost before any token.

class Pictures {
  constructor(root) {
    this.root = root.querySelector(".seen");
    this.frames = this.root.querySelector(".frames");
    this.facts = this.root.querySelector("dl");
    const grid = this.root.querySelector("button");
    grid.addEventListener("click", () => {
      const shown = grid.getAttribute("aria-pressed") !== "true";
      setAttribute(grid, "aria-pressed", shown);
      setData(this.root, "grid", shown ? null : "no");
    });
    this.keep = this.root.querySelector(".keep");
    this.box = this.keep.querySelector("input");
    this.box.addEventListener("change", () => (this.log.keeps = this.box.checked));
  }

  open(log) {
    this.log = log;
    const sizes = sizesOf(log.head.request);
    this.root.hidden = !sizes.length;
    // Whose trace already holds them did agree; a replay without them has none to keep.
    this.keep.hidden = log.kind !== "live" || !log.pictures.length;
    this.box.checked = log.keeps;
    this.frames.replaceChildren(...sizes.map((size, i) => frameOf(size, log.head.image_grids?.[i], log.pictures[i])));
    this.said = "";
  }

  paint() {
    if (this.root.hidden) return;
    const facts = this.describe();
    const said = facts.flat().join();
    if (said === this.said) return;
    this.said = said;
    this.facts.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
  }

  describe() {
    const { head, pictures, lanes } = this.log;
    const sizes = sizesOf(head.request);
    const grids = head.image_grids || [];
    const facts = [[sizes.length > 1 ? "pictures" : "picture", sizes.map(([width, height]) => `${width} × ${height} pixels`).join(", ") + (pictures.length ? "" : "; not kept in this trace")]];
    if (grids.length) facts.push(["image tokens", grids.map(([rows, columns]) => `${rows} × ${columns} = ${rows * columns}`).join(", ")]);
    if (head.image_ms != null) facts.push(["encoding", head.image_ms ? `${brief(head.image_ms)}, once for all lanes and on none of their clocks` : "known from an earlier run"]);
    const prefills = Array.from(lanes.values(), (lane) => lane.events[0]?.clock).filter((clock) => clock !== undefined);
    if (prefills.length) facts.push(["prefill", `${brief(Math.max(...prefills))}, before decoding began`]);
    return facts;
  }
}

const brief = (ms) => (ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : seconds(ms));

/** [[width, height]] of the prompt's pictures; a trace from a file may hold anything here. */
function sizesOf(request) {
  const images = Array.isArray(request?.images) ? request.images.slice(0, 16) : [];
  return images.filter((size) => Array.isArray(size) && size.length === 2 && size.every((side) => Number.isInteger(side) && side > 0));
}

function frameOf([width, height], grid, preview) {
  const frame = make("figure", "frame");
  frame.style.setProperty("--shape", `${width} / ${height}`);
  if (preview) {
    const image = make("img");
    [image.src, image.alt] = [preview, "A picture that the model was shown"];
    frame.append(image);
  }
  if (grid) {
    const lines = make("i");
    lines.style.setProperty("--rows", grid[0]);
    lines.style.setProperty("--columns", grid[1]);
    frame.append(lines);
  }
  return frame;
}
