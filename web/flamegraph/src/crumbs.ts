// The way from everything to what is zoomed into.
import { element, make } from "./dom";
import type { Names } from "./names";
import type { Node } from "./node";

/** Steps that are shown: the first, and these last ones. */
const LAST = 5;

export function crumbs(root: Node, zoom: Node, names: Names, zoomTo: (node: Node) => void): void {
  const path = [root, ...zoom.path()];
  const left = path.length - 1 - LAST;
  const steps: HTMLElement[] = [];
  path.forEach((node, at) => {
    if (at > 0 && at <= left) {
      if (at === 1) steps.push(make("li", {}, `… ${left} more …`));
      return;
    }
    const button = make("button", { type: "button" }, names.of(node));
    if (node === zoom) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => zoomTo(node));
    steps.push(make("li", {}, button));
  });
  element("crumbs").replaceChildren(...steps);
}
