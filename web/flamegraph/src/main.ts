// Starts the page.
import { App } from "./app";
import { unpack } from "./data";
import { element } from "./dom";

async function start(): Promise<void> {
  const wait = element("wait");
  try {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("this browser is too old to unpack it (DecompressionStream is missing)");
    }
    const script = element("data");
    const data = await unpack(script.textContent!.trim());
    script.remove();
    element("page").hidden = false;
    wait.remove();
    const app = new App(data);
    // For tests, and for the curious.
    Object.assign(window, { strandline: { app, data } });
  } catch (error) {
    wait.textContent = `The page's data can't be shown: ${error instanceof Error ? error.message : error}.`;
    wait.setAttribute("role", "alert");
  }
}

void start();
