// Pushes by undici.
import { Agent, request } from "undici";
import { run } from "./pushes.mjs";

run(() => {
  const dispatcher = new Agent();
  return async (url, fields) => {
    const form = { "Content-Type": "application/x-www-form-urlencoded" };
    const body = fields && new URLSearchParams(fields).toString();
    const answer = await request(url, { method: "POST", body, headers: fields ? form : {}, dispatcher });
    await answer.body.text();
    return [answer.statusCode, answer.headers["x-push-id"]];
  };
});
