// Pushes by Node's own fetch. It has one pool a process; a new connection is asked for by its own Connection: close.
import { run } from "./pushes.mjs";

run((given) => async (url, fields) => {
  const body = fields && new URLSearchParams(fields);
  const headers = given.kept ? {} : { Connection: "close" };
  const answer = await fetch(url, { method: "POST", body, headers });
  await answer.text();
  return [answer.status, answer.headers.get("x-push-id")];
});
