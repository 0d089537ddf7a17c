// Takes the pictures of the status page: start `cargo run --example status_page 127.0.0.1:18080`, then
// `node docs/images/take.mjs http://127.0.0.1:18080/`. Needs Chromium and the packages of tests/e2e.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import path from "node:path";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(path.join(here, "../../tests/e2e/package.json"));
const puppeteer = require("puppeteer-core");

const [address = "http://127.0.0.1:18080/", into = here] = process.argv.slice(2);
const views = [
  { name: "light", scheme: "light", width: 1280, height: 800 },
  { name: "dark", scheme: "dark", width: 1280, height: 800 },
  { name: "phone", scheme: "light", width: 390, height: 844 },
];
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
  env: { ...process.env, TZ: "UTC" },
});
let faults = 0;
for (const { name, scheme, width, height } of views) {
  const page = await browser.newPage();
  page.on("console", (message) => {
    faults += 1;
    console.error(`${name}: ${message.text()}`);
  });
  await page.setViewport({ width, height, deviceScaleFactor: name === "phone" ? 2 : 1 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(address, { waitUntil: "load" });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (overflow > 0) {
    faults += 1;
    console.error(`${name}: ${overflow} px wider than the window`);
  }
  await page.screenshot({ path: path.join(into, `status-${name}.png`), fullPage: true });
  await page.close();
}
await browser.close();
process.exitCode = faults === 0 ? 0 : 1;
