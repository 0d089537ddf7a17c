// Looks at a status page in Chromium: `node look.mjs ADDRESS`. Says `loaded`, waits until the page shows "tick tock" by
// itself, and exits 0 only if nothing was wrong: no word on the console (a policy that was broken, a script that failed),
// no dialog, nothing wider than the window at any width.
import { createRequire } from "node:module";

const require = createRequire(new URL("../e2e/package.json", import.meta.url));
const puppeteer = require("puppeteer-core");

const address = process.argv[2];
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const faults = [];
try {
  const page = await browser.newPage();
  page.on("console", (message) => faults.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`script: ${error}`));
  page.on("dialog", async (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    await dialog.dismiss();
  });
  const shape = (scheme, width) =>
    Promise.all([
      page.setViewport({ width, height: 844 }),
      page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]),
    ]);
  const grounds = new Set();
  for (const [scheme, width] of [["light", 320], ["light", 390], ["dark", 390], ["light", 900], ["dark", 1280]]) {
    await shape(scheme, width);
    await page.goto(address, { waitUntil: "load" });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (overflow > 0) faults.push(`${overflow} px too wide at ${width} px`);
    grounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
  }
  if (grounds.size !== 2) faults.push("light and dark look the same");
  if ((await page.title()) !== "Recorder · status") faults.push("the title was changed");

  // Without JavaScript everything is there as well.
  const plain = await browser.newPage();
  await plain.setJavaScriptEnabled(false);
  await plain.goto(address, { waitUntil: "load" });
  const text = await plain.$eval("main", (node) => node.textContent);
  for (const words of ["Podcast, episode 41", "Supervisor", "not on the allow-list"])
    if (!text.includes(words)) faults.push(`without JavaScript, ${words} is missing`);
  await plain.close();

  console.log("loaded");
  await page.waitForFunction(() => document.body.textContent.includes("tick tock"), { timeout: 15000 });
} catch (error) {
  faults.push(String(error));
} finally {
  await browser.close();
}
for (const fault of faults) console.error(fault);
process.exit(faults.length === 0 ? 0 : 1);
