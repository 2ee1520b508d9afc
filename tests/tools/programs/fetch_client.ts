// What openapi-fetch does by the types of openapi-typescript: lists to their ends, one record, files as bytes and text.
import createClient from "openapi-fetch";
import { writeFileSync } from "node:fs";
import type { components, paths } from "./api.js";

const { SMS_URL, SMS_KEY } = process.env;
const options = { baseUrl: SMS_URL, headers: { Authorization: `Bearer ${SMS_KEY}` } };
const client = createClient<paths, "application/json">(options); // else what also comes as text is both, by its type
const files = createClient<paths>(options);

type Page<Item> = { items: Item[]; next_cursor: string | null; has_more: boolean };
type Answer<Item> = { data?: Page<Item>; error?: unknown };

async function all<Item>(ask: (query: { limit: number; cursor?: string }) => Promise<Answer<Item>>): Promise<Item[]> {
  const items: Item[] = [];
  for (let cursor: string | undefined; ; ) {
    const { data, error } = await ask(cursor === undefined ? { limit: 100 } : { limit: 100, cursor });
    if (data === undefined) throw new Error(JSON.stringify(error));
    items.push(...data.items);
    if (!data.has_more || data.next_cursor === null) return items;
    cursor = data.next_cursor;
  }
}

const messages = await all((query) => client.GET("/api/v1/messages", { params: { query } }));
const receipts = await all((query) => client.GET("/api/v1/receipts", { params: { query } }));
const replies = await all((query) => client.GET("/api/v1/replies", { params: { query } }));
const events = await all((query) => client.GET("/api/v1/events", { params: { query } }));

const lastKind: components["schemas"]["Event"]["kind"] | undefined = events.at(-1)?.kind;
const first = messages[0];
if (first === undefined || lastKind === undefined) throw new Error("nothing to read");
const one = await client.GET("/api/v1/messages/{message_id}", { params: { path: { message_id: first.id } } });
const wrong = await files.GET("/api/v1/messages", { params: { query: { limit: 0 } } });

const parquet = await files.GET("/api/v1/exports/messages.parquet", { parseAs: "arrayBuffer" });
const csv = await files.GET("/api/v1/exports/messages.csv", { params: { query: { neutral: false } }, parseAs: "text" });
if (parquet.data === undefined || csv.data === undefined) throw new Error("no file");
writeFileSync("messages.parquet", new Uint8Array(parquet.data));
writeFileSync("messages.csv", csv.data);
writeFileSync(
  "found.json",
  JSON.stringify({ messages, receipts, replies, events, one: one.data, code: wrong.error?.code }),
);
