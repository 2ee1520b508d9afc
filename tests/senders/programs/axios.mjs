// Pushes by axios.
import http from "node:http";
import https from "node:https";
import axios from "axios";
import { run } from "./pushes.mjs";

run((given) => {
  const agents = {
    httpAgent: new http.Agent({ keepAlive: given.kept }),
    httpsAgent: new https.Agent({ keepAlive: given.kept }),
  };
  return async (url, fields) => {
    const body = fields && new URLSearchParams(fields);
    const answer = await axios.post(url, body, { ...agents, validateStatus: () => true });
    return [answer.status, answer.headers["x-push-id"]];
  };
});
