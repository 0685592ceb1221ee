// What falls behind the end of an answer says one thing, however many tokens it is: "6 discarded", one press to open.

const FEWEST = 2; // tokens that are worth folding

class Fold {
  constructor(onPress) {
    this.button = make("button", "folded");
    this.button.type = "button";
    this.button.addEventListener("click", () => {
      this.open = !this.open;
      onPress();
    });
    this.clear();
  }

  clear() {
    this.open = false;
    this.lane = null;
    this.button.remove();
  }

  /** Fold those of a lane's nodes that are discarded now and for good. No token before them moves. */
  paint(nodes, lane, cells) {
    const from = this.from(lane);
    let count = 0;
    for (let i = from; i < nodes.length; i++) count += Number(cells[i]?.state === "discarded");
    const folds = count >= FEWEST;
    for (let i = from; i < nodes.length; i++) setData(nodes[i], "folded", folds && !this.open && cells[i]?.state === "discarded" ? "" : null);
    if (!folds) return this.button.remove();
    setText(this.button, `${count} discarded`);
    setAttribute(this.button, "aria-expanded", String(this.open));
    const last = nodes[nodes.length - 1];
    if (last.nextSibling !== this.button) last.after(this.button);
  }

  /** Where the tail begins that is thrown away when all is done; before the end of a lane nobody knows. */
  from(lane) {
    const { cells } = lane.tip;
    if (!lane.finish) return Infinity;
    if (this.lane === lane && this.length === cells.length) return this.first;
    [this.lane, this.length, this.first] = [lane, cells.length, cells.length];
    while (this.first && cells[this.first - 1]?.state === "discarded") this.first -= 1;
    return this.first;
  }
}
