// What the Node programs share: reads the pushes from standard input, and prints each one's answer.
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

// `make(given)` gives what sends one push: (url, fields or null) => [status, push id]. New connections: made for each.
export async function run(make) {
  const given = JSON.parse(await text(process.stdin));
  let send = make(given);
  for (const push of given.pushes) {
    await sleep(push.pause_seconds * 1000);
    try {
      const [status, id] = await send(push.url, push.fields);
      console.log(`${status} ${id ?? "-"}`);
    } catch (error) {
      console.log(`failed ${error.message} ${error.cause?.message ?? ""}`.replaceAll("\n", " "));
    }
    if (!given.kept) send = make(given);
  }
  process.exit(0);
}
