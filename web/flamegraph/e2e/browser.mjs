// A browser that may load the page and nothing else.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const folder = process.env.PAGES;
assert.ok(folder, "PAGES names the folder with the pages: see scripts/check-web");

/** What the page `name` has to show. */
export const sums = (name) => JSON.parse(readFileSync(`${folder}/${name}.json`, "utf8"));

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
  ],
});

/** Opens `name` with an address's end. Any request but for the page, and any error, fails `done`. */
export async function open(name, hash = "", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  const url = pathToFileURL(`${folder}/${name}.html`).href;
  await page.route("**", (route) => {
    if (route.request().url().split("#")[0] === url) return route.continue();
    wrong.push(`request: ${route.request().url()}`);
    return route.abort();
  });
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("console", (message) => wrong.push(message.text()));
  page.on("dialog", (dialog) => wrong.push(`dialog: ${dialog.message()}`));
  await page.goto(url + hash);
  await page.waitForFunction(() => window.strandline);
  const done = async () => {
    assert.deepEqual(wrong, []);
    await context.close();
  };
  return { page, done };
}

/** The boxes that are drawn: names, widths, and where their middle is in the window. */
export function boxes(page) {
  return page.evaluate(() => {
    const { app } = window.strandline;
    const { left, top } = document.getElementById("canvas").getBoundingClientRect();
    const scroll = document.getElementById("graph").scrollTop;
    const height = document.getElementById("sheet").clientHeight;
    const down = app.state.growth === "down";
    return app.graph.boxes.map((row, at) =>
      row.map((box) => ({
        name: box.node ? app.names.of(box.node) : null,
        value: box.value,
        width: box.width,
        x: left + box.x + box.width / 2,
        y: top + (down ? at * 20 : height - (at + 1) * 20) - scroll + 10,
      })),
    );
  });
}

export const text = (page, id) => page.locator(`#${id}`).textContent();

/** Bytes as the page writes them. */
export function mib(bytes) {
  const [whole, rest] = (Math.abs(bytes) / 1048576).toFixed(3).split(".");
  return `${bytes < 0 ? "−" : ""}${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${rest} MiB`;
}

export const number = (n) => `${n}`.replace(/\B(?=(\d{3})+$)/g, ",");
