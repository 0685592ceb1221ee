// The race in one row, where lanes do not stand side by side: a tab for each lane with its tokens so far brings it into
// view. Lanes are swiped, too; clock and cursor are the same for all, so nothing is lost on the way.

const SHORT = { ar: "AR", diffusion: "Diffusion", "self-speculation": "Self-spec." };

class Race {
  constructor(root) {
    this.lanes = root.querySelector(".lanes");
    const node = root.querySelector(".race");
    this.tabs = new Map();
    for (const lane of this.lanes.querySelectorAll("[data-lane]")) {
      const mode = lane.dataset.lane;
      const tab = node.appendChild(make("button", "tab"));
      tab.type = "button";
      tab.dataset.of = mode;
      const head = tab.appendChild(make("span", "name"));
      head.append(make("i", "dot"), make("span", "", SHORT[mode]));
      const figure = tab.appendChild(make("span", "count"));
      const fill = tab.appendChild(make("u")).appendChild(make("i"));
      tab.addEventListener("click", () => this.lanes.scrollTo({ left: lane.offsetLeft - this.lanes.offsetLeft, behavior: "instant" }));
      this.tabs.set(mode, { tab, lane, figure, fill });
    }
    this.lanes.addEventListener("scroll", () => this.look(), { passive: true });
    new ResizeObserver(() => this.look()).observe(this.lanes);
  }

  /** hides(mode): whether another lane is shown alone. Nothing here reads the layout. */
  paint(log, eventOf, hides) {
    for (const [mode, { tab, figure, fill }] of this.tabs) {
      const lane = log.lanes.get(mode);
      tab.hidden = !lane || hides(mode);
      if (!lane) continue;
      const k = eventOf(lane);
      const kept = lane.events[k]?.kept ?? 0;
      const done = lane.finish && k === lane.events.length - 1;
      const fault = done && faultOf(lane);
      setText(figure, `${plural(kept, "token")}${done ? (fault ? " ✗" : " ✓") : ""}`);
      setData(tab, "done", done ? (fault ? "no" : "yes") : null);
      tab.title = fault || "";
      fill.style.width = `${(kept / Math.max(1, lane.kept)) * 100}%`;
    }
  }

  /** The tab of the lane in view is marked. */
  look() {
    const { scrollLeft, clientWidth, offsetLeft } = this.lanes;
    for (const { tab, lane } of this.tabs.values()) {
      const here = !lane.hidden && Math.abs(lane.offsetLeft - offsetLeft - scrollLeft) < clientWidth / 2;
      setAttribute(tab, "aria-current", here ? "true" : null);
    }
  }
}
