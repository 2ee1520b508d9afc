// Verifies a post by standardwebhooks or svix: its own secret and body pass; another body, or a clock ahead, do not.
import { readFileSync } from "node:fs";

const { library, secret, posts } = JSON.parse(readFileSync(0, "utf8"));
const { Webhook } = await import(library);
const verifier = new Webhook(secret);
const now = Date.now;

function refused(body, headers) {
  try {
    verifier.verify(body, headers);
  } catch {
    return true;
  }
  return false;
}

const found = posts.map(({ body, headers }) => {
  const payload = verifier.verify(body, headers) ?? JSON.parse(body); // svix gives nothing back
  const changed = refused(body.replace("}", " }"), headers);
  Date.now = () => now() + 400_000;
  const old = refused(body, headers);
  Date.now = now;
  return { payload, changed, old };
});
console.log(JSON.stringify(found));
