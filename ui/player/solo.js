// One lane alone: keys 1, 2, 3 or the button in a lane's heading; the same again shows all lanes.

class Solo {
  constructor(root, schedule) {
    this.root = root;
    this.schedule = schedule;
    this.mode = null;
    this.buttons = new Map();
    for (const [i, lane] of Array.from(root.querySelectorAll("[data-lane]")).entries()) {
      const button = lane.querySelector("h2").appendChild(make("button", "solo", "solo"));
      button.type = "button";
      button.title = `Show this lane alone (${i + 1})`;
      button.setAttribute("aria-label", `solo: ${lane.getAttribute("aria-label")} alone`);
      button.setAttribute("aria-keyshortcuts", String(i + 1));
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => this.toggle(lane.dataset.lane));
      this.buttons.set(lane.dataset.lane, button);
    }
    root.addEventListener("keydown", (event) => {
      const mode = { 1: "ar", 2: "diffusion", 3: "self-speculation" }[event.key];
      if (!mode || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, textarea")) return;
      event.preventDefault();
      this.toggle(mode);
    });
  }

  /** Called for a new run: lanes that it lacks cannot be alone. */
  open(log) {
    this.log = log;
    for (const button of this.buttons.values()) button.hidden = log.lanes.size < 2;
    this.set(log.lanes.has(this.mode) && log.lanes.size > 1 ? this.mode : null);
  }

  toggle(mode) {
    if (this.log?.lanes.has(mode) && this.log.lanes.size > 1) this.set(this.mode === mode ? null : mode);
  }

  set(mode) {
    this.mode = mode;
    setData(this.root, "solo", mode);
    for (const [one, button] of this.buttons) button.setAttribute("aria-pressed", String(one === mode));
    this.root.style.setProperty("--lanes", mode ? 1 : this.log.lanes.size);
    this.schedule();
  }

  hides(mode) {
    return this.mode !== null && this.mode !== mode;
  }
}
