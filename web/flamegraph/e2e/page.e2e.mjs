// The page in a browser: what it shows is what the profile says, by pointer and by keys.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { boxes, browser, mib, number, open, sums, text } from "./browser.mjs";

const { now } = sums("page");
const other = (box) => box.name === "all other paths";

after(() => browser.close());

test("every weight shows the profile's sum, in bytes and blocks", async () => {
  const { page, done } = await open("page");
  for (const [weight, sum] of Object.entries(now.weights)) {
    await page.selectOption("#weight", weight);
    const shown = `${mib(sum.bytes)} in ${number(sum.blocks)} blocks`;
    assert.ok((await text(page, "sum")).includes(shown), shown);
    assert.equal((await boxes(page))[0][0].value, sum.bytes);
    await page.click("#unit button[value=blocks]");
    assert.equal((await boxes(page))[0][0].value, sum.blocks);
    await page.click("#unit button[value=bytes]");
  }
  await done();
});

test("a click zooms, crumbs and Backspace lead back, and so does the browser", async () => {
  const { page, done } = await open("page");
  const box = (await boxes(page))[3][0];
  await page.mouse.click(box.x, box.y);
  const zoomed = await boxes(page);
  assert.equal(zoomed[3].length, 1);
  assert.equal(zoomed[3][0].name, box.name);
  assert.equal(zoomed[3][0].value, box.value);
  assert.match(page.url(), /zoom=/);
  assert.equal(await page.locator("#crumbs [aria-current]").textContent(), box.name);
  await page.reload();
  await page.waitForFunction(() => window.strandline);
  assert.equal((await boxes(page))[3][0].name, box.name, "the address brings it back");
  await page.focus("#graph");
  await page.keyboard.press("Backspace");
  assert.equal((await boxes(page))[3].length > 1, true);
  await page.locator("#crumbs button").first().click();
  assert.equal(await page.locator("#reset").isDisabled(), true);
  await page.goBack();
  await page.goBack();
  assert.equal((await boxes(page))[3].length, 1);
  await done();
});

test("a search highlights, and adds up each path once", async () => {
  const { page, done } = await open("page");
  await page.keyboard.press("/");
  await page.keyboard.type("thread.run");
  const sum = (await boxes(page))[2].filter((box) => box.name === "Thread.run").reduce((all, box) => all + box.value, 0);
  assert.ok((await text(page, "found")).startsWith(mib(sum)));
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "graph");
  assert.match(await page.locator("#spoken > *").getAttribute("aria-label"), /^Thread\.run\. /);
  assert.match(page.url(), /search=thread\.run/);
  await page.fill("#search", "/(/");
  assert.match(await text(page, "found"), /no valid/);
  await page.focus("#search");
  await page.keyboard.press("Escape");
  assert.equal(await page.inputValue("#search"), "");
  await done();
});

test("lines first: the same sum, and each line's own part", async () => {
  const { page, done } = await open("page");
  await page.click("#view button[value=lines]");
  const rows = await boxes(page);
  assert.equal(rows[0][0].value, now.weights.peak.bytes);
  assert.equal(rows[1].reduce((sum, box) => sum + box.value, 0), now.weights.peak.bytes);
  const widest = rows[1][0];
  const own = await page.evaluate(() => {
    const { app, data } = window.strandline;
    const { frame } = app.graph.boxes[1][0].node;
    const bytes = data.columns.numbers("0.peak.bytes");
    let sum = 0;
    data.entries.node.forEach((node, i) => (sum += data.nodes.frame[node] === frame ? bytes[i] : 0));
    return sum;
  });
  assert.equal(widest.value, own);
  await page.click("#growth button[value=up]");
  const flame = await boxes(page);
  assert.ok(flame[0][0].y > flame[1][0].y, "grows upwards");
  await page.mouse.click(flame[1][0].x, flame[1][0].y);
  assert.equal((await boxes(page))[1].length, 1);
  await done();
});

test("threads: filter, first level, one process alone", async () => {
  const { page, done } = await open("page");
  await page.click("#threads-summary");
  await page.locator("#threads button", { hasText: "only this" }).nth(1).click();
  const second = now.threads.filter((t) => t.pid === 4712);
  const sum = second.reduce((sum, t) => sum + t.peak.bytes, 0);
  assert.equal((await boxes(page))[0][0].value, sum);
  await page.locator("#threads label", { hasText: "reader-0" }).nth(1).locator("input").uncheck();
  const reader = second.find((t) => t.name === "reader-0").peak.bytes;
  assert.equal((await boxes(page))[0][0].value, sum - reader);
  await page.keyboard.press("Escape");
  await page.check("#split");
  const rows = await boxes(page);
  const rest = second.filter((t) => t.name !== "reader-0" && t.peak.bytes > 0).map((t) => t.peak.bytes);
  assert.deepEqual(rows[1].filter((b) => b.name).map((box) => box.value), rest.filter((v) => v / (sum - reader) * 1266 > 0.5).sort((a, b) => b - a));
  assert.match(rows[1][0].name, /, process 4712$/);
  await page.reload();
  await page.waitForFunction(() => window.strandline);
  assert.equal((await boxes(page))[0][0].value, sum - reader, "the address brings it back");
  await done();
});

/** Bytes in use at a time, over all processes. */
function inUse(us) {
  const first = Math.min(...now.points.map((p) => p.started));
  let sum = 0;
  now.points.forEach(({ started, points }, process) => {
    const at = points.filter(([time]) => started - first + time <= us);
    const over = at.length === points.length && process === 2 && started - first + points.at(-1)[0] < us;
    if (at.length > 0 && !over) sum += at.at(-1)[1];
  });
  return sum;
}

test("a brush on the chart shows the highest moment of the interval", async () => {
  const { page, done } = await open("page");
  const chart = await page.locator("#chart").boundingBox();
  const drag = async (from, to) => {
    await page.mouse.move(chart.x + from, chart.y + 40);
    await page.mouse.down();
    await page.mouse.move(chart.x + to, chart.y + 60, { steps: 4 });
    await page.mouse.up();
  };
  await drag(200, 420);
  const [times, interval] = await page.evaluate(() => {
    const { app } = window.strandline;
    return [[...app.series.times], app.state.interval];
  });
  const highest = Math.max(...times.slice(interval[0], interval[1] + 1).map(inUse));
  const rows = await boxes(page);
  assert.equal(rows[0][0].value, highest);
  assert.ok(rows[1].some(other));
  assert.ok((await text(page, "sum")).includes(mib(highest)));
  assert.equal(await page.locator("#unit button[value=blocks]").isDisabled(), true);
  assert.match(page.url(), /interval=\d+\.\d+/);
  await page.focus("#to");
  await page.keyboard.press("End");
  const all = Math.max(...times.slice(interval[0]).map(inUse));
  assert.equal((await boxes(page))[0][0].value, all, "the sliders do the same");
  // What isn't told apart belongs to no thread.
  await page.click("#threads-summary");
  await page.locator("#threads label", { hasText: "MainThread" }).first().locator("input").uncheck();
  const first = await page.evaluate(() => window.strandline.app.graph.boxes[1].filter((b) => b.node).map((b) => b.node.value));
  assert.ok(first.reduce((a, b) => a + b, 0) < all);
  await page.keyboard.press("Escape");
  await page.click("#whole");
  assert.equal(await page.inputValue("#weight"), "peak");
  await done();
});

test("the graph is used by keys alone, and says what has the focus", async () => {
  const { page, done } = await open("page");
  const spoken = () => page.locator("#spoken > *").getAttribute("aria-label");
  const press = (key) => page.keyboard.press(key);
  for (let i = 0; i < 40 && (await page.evaluate(() => document.activeElement.id)) !== "graph"; i++) await press("Tab");
  assert.match(await spoken(), /^everything\. Together: /);
  const rows = await boxes(page);
  await press("ArrowDown");
  assert.ok((await spoken()).startsWith(`${rows[1][0].name}. `));
  assert.equal(await page.evaluate(() => document.getElementById("graph").getAttribute("aria-activedescendant")), await page.locator("#spoken > *").getAttribute("id"));
  await press("ArrowRight");
  assert.ok((await spoken()).startsWith(`${rows[1][1].name}. `));
  await press("End");
  await press("Home");
  await press("ArrowDown");
  assert.match(await spoken(), /Level 2, 1 of /);
  assert.match(await spoken(), /By this line itself: /);
  assert.equal(await page.locator("#focus").isVisible(), true);
  assert.equal(await page.locator("#tooltip").isVisible(), true);
  await press("Enter");
  assert.equal((await boxes(page))[2].length, 1);
  await press("Escape");
  assert.equal(await page.locator("#tooltip").isVisible(), false);
  await press("Escape");
  assert.equal(await page.evaluate(() => window.strandline.app.state.zoom.length), 1);
  await press("r");
  for (const [key, part, value] of [["v", "view", "lines"], ["o", "growth", "up"], ["u", "unit", "blocks"], ["t", "split", true], ["d", "theme", "light"]]) {
    await press(key);
    assert.equal(await page.evaluate((part) => window.strandline.app.state[part], part), value, key);
  }
  await press("ArrowUp");
  assert.match(await spoken(), /Level 1, /);
  await press("?");
  assert.equal(await page.locator("#help").isVisible(), true);
  await press("Escape");
  assert.equal(await page.locator("#help").isVisible(), false);
  await done();
});

test("a stack of 300 frames can be scrolled to its end", async () => {
  for (const growth of ["down", "up"]) {
    const { page, done } = await open("page", `#growth=${growth}`);
    // Into the deep one: always the child that leads deepest.
    await page.evaluate(() => {
      const { app, data } = window.strandline;
      const { parent, frame } = data.nodes;
      const depth = new Int32Array(parent.length);
      let deepest = 0;
      for (let i = 1; i < depth.length; i++) if ((depth[i] = depth[parent[i]] + 1) > depth[deepest]) deepest = i;
      const keys = [];
      for (let at = deepest; at > 0; at = parent[at]) keys.unshift(frame[at].toString(36));
      app.change({ zoom: keys });
    });
    const rows = await boxes(page);
    assert.ok(rows.length > 300);
    const last = rows.at(-1)[0];
    const graph = await page.locator("#graph").boundingBox();
    assert.ok(last.y > graph.y && last.y < graph.y + graph.height, "what is zoomed into is in sight");
    assert.match(await text(page, "crumbs"), /more/);
    await page.click("#reset");
    await page.waitForTimeout(100);
    const top = (await boxes(page))[0][0];
    assert.ok(top.y > graph.y && top.y < graph.y + graph.height);
    await done();
  }
});

test("a click after scrolling zooms into what is under the pointer", async () => {
  const { page, done } = await open("page");
  await page.evaluate(() => (document.getElementById("graph").scrollTop = 160));
  await page.waitForTimeout(100);
  const box = (await boxes(page))[12][0];
  await page.mouse.click(box.x, box.y);
  assert.equal(await page.locator("#crumbs [aria-current]").textContent(), box.name);
  assert.equal((await boxes(page))[12].length, 1);
  await done();
});

test("names are text and nothing else", async () => {
  const { page, done } = await open("page", "#split=1");
  await page.click("#threads-summary");
  assert.ok((await text(page, "threads")).includes("</script><b>Thread</b>"));
  assert.equal(await page.locator("b").count(), 0);
  await done();
});

test("dark and light: as the system, or as chosen", async () => {
  const theme = (page) => page.evaluate(() => document.documentElement.dataset.theme);
  const { page, done } = await open("page", "", { colorScheme: "dark" });
  assert.equal(await theme(page), "dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.waitForFunction(() => document.documentElement.dataset.theme === "light");
  await page.click("#theme");
  await page.click("#theme");
  assert.equal(await theme(page), "dark");
  await done();
});

test("a difference shows before, after and change", async () => {
  const both = sums("diff");
  const { page, done } = await open("diff");
  for (const [weight, sum] of Object.entries(both.now.weights)) {
    await page.selectOption("#weight", weight);
    const before = both.before.weights[weight];
    const shown = await text(page, "sum");
    assert.ok(shown.includes(`${mib(sum.bytes)} in ${number(sum.blocks)} blocks`), shown);
    assert.ok(shown.includes(`before: ${mib(before.bytes)}`), shown);
  }
  await page.selectOption("#weight", "peak");
  await page.click("#wide button[value=change]");
  const box = (await boxes(page))[1][0];
  await page.mouse.move(box.x, box.y);
  const tip = await text(page, "tooltip");
  for (const word of ["After", "Before", "Change"]) assert.ok(tip.includes(word));
  assert.equal(await page.locator("#time").isVisible(), false);
  await done();
});

test("nothing that axe finds", async () => {
  for (const [name, hash] of [["page", ""], ["page", "#theme=dark&search=merge&interval=10.50"], ["diff", ""], ["diff", "#theme=dark"]]) {
    const { page, done } = await open(name, hash);
    await page.focus("#graph");
    await page.keyboard.press("ArrowDown");
    const found = async () => {
      const { violations } = await new AxeBuilder({ page }).analyze();
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html)}`), [], `${name}${hash}`);
    };
    await found();
    await page.keyboard.press("?");
    await found();
    await page.keyboard.press("Escape");
    await page.click("#threads-summary");
    await found();
    await done();
  }
});
