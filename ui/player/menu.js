// What a viewer takes away, in one menu: opened by its button or the arrow keys, walked with the arrows, left with
// Escape.

class Menu {
  constructor(node) {
    this.toggle = node.querySelector("[aria-haspopup]");
    this.list = node.querySelector('[role="menu"]');
    this.name = this.toggle.textContent;
    this.toggle.addEventListener("click", () => (this.list.hidden ? this.open() : this.close()));
    this.list.addEventListener("click", (event) => event.target.closest('[role="menuitem"]') && this.close());
    node.addEventListener("keydown", (event) => this.key(event));
    node.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !node.contains(event.relatedTarget)) this.close(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!node.contains(event.target)) this.close(false);
    });
  }

  get items() {
    return Array.from(this.list.querySelectorAll('[role="menuitem"]:not([hidden])'));
  }

  get ready() {
    return this.toggle.getAttribute("aria-disabled") !== "true";
  }

  open(at = 0) {
    if (!this.ready) return;
    this.list.hidden = false;
    this.toggle.setAttribute("aria-expanded", "true");
    this.items.at(at).focus();
  }

  close(back = true) {
    if (this.list.hidden) return;
    this.list.hidden = true;
    this.toggle.setAttribute("aria-expanded", "false");
    if (back) this.toggle.focus();
  }

  /** While a file is made, the button says so and opens nothing. */
  busy(text) {
    setText(this.toggle, text || this.name);
    setAttribute(this.toggle, "aria-disabled", text ? "true" : null);
  }

  /** What was done, on the button for a moment. */
  tell(text) {
    setText(this.toggle, text);
    setTimeout(() => this.ready && setText(this.toggle, this.name), 2000);
  }

  key(event) {
    const open = !this.list.hidden;
    const items = this.items;
    const at = items.indexOf(document.activeElement);
    if (event.key === "Escape" && open) this.close();
    else if (event.key === "ArrowDown") open ? items[(at + 1) % items.length].focus() : this.open();
    else if (event.key === "ArrowUp") open ? items.at(at < 1 ? -1 : at - 1).focus() : this.open(-1);
    else if (open && event.key === "Home") items[0].focus();
    else if (open && event.key === "End") items.at(-1).focus();
    else {
      if (open && event.key !== "Tab") event.stopPropagation(); // the stage's own keys rest while a menu is open
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
